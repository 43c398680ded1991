"""Plain data from a recipe becomes a frozen config class; every problem is found at once, with the near miss."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from evalsuite.errors import UsageError, did_you_mean

T = TypeVar("T")


def parse(config: type[T], raw: Any, where: str) -> T:
    """`raw` as an instance of the dataclass `config`. Raises UsageError with every problem, one a line.

    Fields may be str, int, float, bool, Literal, None, tuple[X, ...], Mapping[str, X], another dataclass, Any, or a
    union of these. A field of type float takes whole numbers too, and "5e-7" (YAML reads it as text).
    """
    problems: list[str] = []
    value = _dataclass(config, raw, where, problems)
    if problems:
        raise UsageError("\n".join(problems))
    return cast("T", value)


def _dataclass(config: type, raw: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(raw, Mapping):
        problems.append(f"{where}: expected a mapping, found {raw!r}")
        return None
    before = len(problems)
    fields = {f.name: f for f in dataclasses.fields(config)}
    problems += [f"{where}: unknown key {key!r}{did_you_mean(str(key), fields)}" for key in raw if key not in fields]
    hints = get_type_hints(config)
    found = {name: _value(hints[name], raw[name], f"{where}.{name}", problems) for name in fields if name in raw}
    missing = [name for name, f in fields.items() if name not in raw and _required(f)]
    problems += [f"{where}: {name!r} is missing" for name in missing]
    if len(problems) > before:  # what is wrong elsewhere keeps no class from checking itself
        return None
    try:
        return config(**found)
    except UsageError as error:  # a class that checks itself says it in its own words
        problems.append(f"{where}: {error}")
        return None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(kind: Any, raw: Any, where: str, problems: list[str]) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return raw
    if origin in (Union, types.UnionType):
        return _union(get_args(kind), raw, where, problems)
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast("type", kind), raw, where, problems)
    if origin is tuple:
        if not isinstance(raw, list | tuple):
            problems.append(f"{where}: expected a list, found {raw!r}")
            return ()
        return tuple(_value(get_args(kind)[0], item, f"{where}[{i}]", problems) for i, item in enumerate(raw))
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        if not isinstance(raw, Mapping):
            problems.append(f"{where}: expected a mapping, found {raw!r}")
            return {}
        return {str(k): _value(get_args(kind)[1], item, f"{where}.{k}", problems) for k, item in raw.items()}
    for value in _scalar(kind, raw):
        return value
    near = did_you_mean(raw, get_args(kind)) if origin is Literal and isinstance(raw, str) else ""
    problems.append(f"{where}: expected {_named(kind)}, found {_told(raw)}{near}")
    return None


def _union(kinds: tuple[Any, ...], raw: Any, where: str, problems: list[str]) -> Any:
    if raw is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest:
        tried: list[str] = []
        value = _value(kind, raw, where, tried)
        if not tried:
            return value
    if len(rest) == 1:
        problems += tried
    else:
        problems.append(f"{where}: expected {' or '.join(map(_named, rest))}, found {_told(raw)}")
    return None


def _scalar(kind: Any, raw: Any) -> Iterator[Any]:
    """The value, if `raw` is one of this kind."""
    if get_origin(kind) is Literal:
        if raw in get_args(kind) and not (isinstance(raw, bool) and True not in get_args(kind)):
            yield raw
    elif kind is float:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            yield float(raw)
        elif isinstance(raw, str):
            try:
                yield float(raw)
            except ValueError:
                return
    elif isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        yield raw


def _told(raw: Any) -> str:
    return "null: no public source gives this value, so set it" if raw is None else repr(raw)


def _named(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list"}
    return words.get(get_origin(kind) or kind, "a mapping")
