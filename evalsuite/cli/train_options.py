"""What a recipe may set under `options` for a trainer, read from its config class."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def option_lines(name: str) -> Iterator[str]:
    """The documentation of a trainer's options, then one line for each with its type and default.

    Raises UsageError for an unknown trainer.
    """
    from evalsuite.trainers.lookup import find_trainer

    config = find_trainer(name).config
    classes = [each for each in reversed(config.__mro__) if dataclasses.is_dataclass(each)]
    for each in classes:
        yield from (inspect.getdoc(each) or "").splitlines()
        yield ""
    fields, hints = dataclasses.fields(config), get_type_hints(config)
    width = max(len(field.name) for field in fields)
    for field in fields:
        yield f"{field.name:<{width}}  {_kind(hints[field.name])}{_default(field)}"


def _kind(hint: Any) -> str:
    """A type as a recipe's author knows it: `linear | cosine`, `list of text`, `{r, alpha}`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " | ".join(map(_kind, parts))
    if dataclasses.is_dataclass(hint):
        return f"{{{', '.join(field.name for field in dataclasses.fields(hint))}}}"
    if origin is tuple:
        return f"list of {_kind(parts[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping) and parts:
        return f"mapping of {_kind(parts[1])}"
    words = {str: "text", int: "whole number", float: "number", bool: "true | false", type(None): "null"}
    return words.get(hint, "mapping")


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {_written(field.default)}"
    if field.default_factory is not dataclasses.MISSING:
        return f" = {_written(field.default_factory())}"
    return "  (needed)"


def _written(value: object) -> str:
    """A value as a recipe has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return f"{{{', '.join(f'{field.name}: {_written(getattr(value, field.name))}' for field in fields)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
