"""Reads a policy: the shipped default, a file laid over it, and `--set` lines over both; every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from evalsuite.benchmark import read_yaml
from evalsuite.errors import BenchmarkError, PolicyError, UsageError, did_you_mean
from evalsuite.gate import schema
from evalsuite.gate.policy import (
    Decontamination,
    Errors,
    Floor,
    KRule,
    Method,
    MustImprove,
    Notify,
    Override,
    Planning,
    Policy,
    Rule,
    Samples,
    Slices,
    Target,
    Unseen,
)
from evalsuite.gate.schema import Problems

if TYPE_CHECKING:
    from evalsuite.scorecard import SuiteRef
    from evalsuite.suite import Suite

FOLDER = Path(__file__).parents[1] / "policies"
DEFAULT = "default"


def known_policies() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_policy(
    source: str | None = None, sets: Sequence[str] = (), *, suite: Suite | SuiteRef | None = None
) -> Policy:
    """A shipped policy by name or a policy file by path, laid over the shipped default, and `sets` over both.

    Without a source: the shipped policy of the suite, else the default one. `sets` are lines "path=value", the value in
    YAML. With `suite`, or what a scorecard says of its own, columns and groups become benchmark names, and what it does
    not have is a problem; give it wherever the digest is kept. Raises PolicyError with every problem, UsageError for a
    name that does not exist.
    """
    path = _found(source, suite)
    problems = Problems(path)
    raw = _merged(_yaml(known_policies()[DEFAULT]), _yaml(path))
    if source is None and suite is not None:
        raw["suite"] = suite.name
    name = path.stem if source is None or source in known_policies() else str(path)
    for setting in _settings(sets, problems):
        raw = _merged(raw, setting)
    policy = _policy(raw, problems)
    if suite is not None:
        policy = _for_suite(raw, suite, problems)
    problems.refuse()
    return replace(policy, name=str(raw.get("name", name)), settings=tuple(sets))


def _for_suite(raw: Mapping[str, Any], suite: Suite | SuiteRef, problems: Problems) -> Policy:
    """The policy under the benchmark names of the suite, and what is wrong with it there."""
    from evalsuite.gate.naming import fitting, renamed

    # A file with problems has told them under the names it uses; told again under other names they would only confuse.
    again = Problems(problems.file, [], problems.set_paths)
    told = bool(problems)
    policy = _policy(renamed(raw, suite, problems), again)
    fitting(policy, suite, problems)
    if not told:
        problems.lines += again.lines
    return policy


def _found(source: str | None, suite: Suite | SuiteRef | None) -> Path:
    known = known_policies()
    if source is None:
        own = [name for name, path in known.items() if suite is not None and _yaml(path).get("suite") == suite.name]
        return known[own[0] if own and DEFAULT not in own else DEFAULT]
    path = known.get(source) or Path(source)
    if source not in known and not (path.suffix in {".yaml", ".yml"} and path.is_file()):
        raise UsageError(f"no policy named {source!r}{did_you_mean(source, known)}; there are {', '.join(known)}")
    return path


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except BenchmarkError as error:
        raise PolicyError(str(error)) from error


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are laid over each other key by key; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _policy(raw: Mapping[str, Any], problems: Problems) -> Policy:
    """The policy in a merged mapping; where there are problems, with defaults in their place."""
    top = problems.values("", raw, schema.TOP)
    compare = problems.values("compare", raw.get("compare"), schema.COMPARE)
    default, rules = _rules(raw, problems)
    safety, rules = _safety(raw.get("safety"), default, rules, problems)
    method = _method(raw.get("method"), problems)
    return Policy(
        **{key: top[key] for key in ("version", "suite", "infra") if key in top},
        **compare,
        method=method,
        samples=_samples(raw.get("samples"), problems),
        plan=_planning(raw.get("plan"), problems),
        default=default,
        rules=rules,
        must_improve=_must_improve(raw.get("must_improve"), method, problems),
        safety=safety,
        slices=Slices(**problems.values("slices", raw.get("slices"), schema.SLICES)),
        decontamination=Decontamination(
            **problems.values("decontamination", raw.get("decontamination"), schema.DECONTAMINATION)
        ),
        errors=Errors(**problems.values("errors", raw.get("errors"), schema.ERRORS)),
        unseen=_unseen(raw.get("unseen"), problems),
        override=Override(**problems.values("override", raw.get("override"), schema.OVERRIDE)),
        notify=_notify(raw.get("notify"), problems),
    )


def _method(raw: Any, problems: Problems) -> Method:
    values = problems.values("method", raw, schema.METHOD)
    spending = values.pop("spending", None)
    return Method(**values, **problems.values("method.spending", spending, schema.SPENDING))


def _samples(raw: Any, problems: Problems) -> Samples:
    values = problems.values("samples", raw, schema.SAMPLES)
    rows = problems.rows("samples.when", values.pop("when", ()), schema.K_RULE, needed=("n_lt", "k"))
    return Samples(**values, when=tuple(sorted((KRule(**row) for _, row in rows), key=lambda rule: rule.n_lt)))


def _planning(raw: Any, problems: Problems) -> Planning:
    planning = Planning(**problems.values("plan", raw, schema.PLAN))
    if planning.disagreement < planning.disagreement_floor:
        wanted = f"at least plan.disagreement_floor, {planning.disagreement_floor!r}"
        problems.add("plan.disagreement", planning.disagreement, wanted)
    return planning


def _rules(raw: Mapping[str, Any], problems: Problems) -> tuple[Rule, dict[str, Rule]]:
    """The default rule, and the rules of named benchmarks laid over it."""
    given = problems.mapping("must_not_regress", raw.get("must_not_regress"))
    default = _rule(Rule(), "must_not_regress.default", given.get("default", {}), problems)
    named = {name: entry for name, entry in given.items() if name != "default"}
    return default, {n: _rule(default, f"must_not_regress.{n}", entry, problems) for n, entry in named.items()}


def _rule(base: Rule, path: str, raw: Any, problems: Problems) -> Rule:
    rule = replace(base, **problems.values(path, raw, schema.RULE))
    if rule.margin_max is not None and rule.margin_max < rule.margin_min:
        problems.add(f"{path}.margin_max", rule.margin_max, f"at least its margin_min, {rule.margin_min!r}")
    if rule.strata and rule.cluster not in ("default", "none"):
        problems.add(f"{path}.strata", True, f"either strata or a cluster field, and cluster is {rule.cluster!r}")
    return rule


def _safety(
    raw: Any, default: Rule, rules: dict[str, Rule], problems: Problems
) -> tuple[dict[str, Floor], dict[str, Rule]]:
    """The bounds, and the rules with the margins that stand beside them."""
    floors: dict[str, Floor] = {}
    rules = dict(rules)
    for name, entry in problems.mapping("safety", raw).items():
        path = f"safety.{name}"
        values = problems.values(path, entry, schema.FLOOR)
        margin = values.pop("margin", None)
        bounds = Floor(**values)
        if isinstance(entry, Mapping) and not any(entry.get(key) is not None for key in schema.FLOOR):
            problems.add(path, entry, "floor, ceiling or both")
        if bounds.floor is not None and bounds.ceiling is not None and bounds.floor >= bounds.ceiling:
            problems.add(f"{path}.floor", bounds.floor, f"a floor below the ceiling, {bounds.ceiling!r}")
        if bounds != Floor():
            floors[name] = bounds
        if margin is not None:
            rules[name] = _with_margin(name, margin, rules.get(name, default), problems)
    return floors, rules


def _with_margin(name: str, margin: float, rule: Rule, problems: Problems) -> Rule:
    path = f"safety.{name}.margin"
    if "/" in name:
        problems.add(path, margin, f"a margin for the whole benchmark, {name.partition('/')[0]!r}: a part has none")
    if rule.margin not in (None, margin):
        problems.add(path, margin, f"one margin; must_not_regress says {rule.margin!r}")
    return replace(rule, margin=margin)


def _must_improve(raw: Any, method: Method, problems: Problems) -> MustImprove | None:
    if raw is None:
        return None
    values = problems.values("must_improve", raw, schema.MUST_IMPROVE)
    values.pop("spending", None)
    alpha = values.pop("alpha", method.alpha)
    if alpha > method.alpha:
        problems.add("must_improve.alpha", alpha, f"at most method.alpha, {method.alpha!r}")
    if len(values) != 1:
        if isinstance(raw, Mapping) and ("any_of" in raw) == ("all_of" in raw):
            problems.add("must_improve", raw, "any_of or all_of, one of them")
        return None
    mode: Literal["any_of", "all_of"] = "any_of" if "any_of" in values else "all_of"
    rows = values[mode]
    if rows == []:
        problems.add(f"must_improve.{mode}", rows, "a list with at least one target, or must_improve: null")
    read = problems.rows(f"must_improve.{mode}", rows, schema.TARGET, needed=("metric",))
    return MustImprove(mode, tuple(Target(**row) for _, row in read), alpha)


def _unseen(raw: Any, problems: Problems) -> Unseen:
    values = problems.values("unseen", raw, schema.UNSEEN)
    return Unseen(**{key: value for key, value in values.items() if key not in ("only_in", "mechanism")})


def _notify(raw: Any, problems: Problems) -> tuple[Notify, ...]:
    found = []
    for path, row in problems.rows("notify", raw, schema.NOTIFY):
        if len(row) == 1:
            kind: Literal["webhook", "file"] = "webhook" if "webhook" in row else "file"
            found.append(Notify(kind, row[kind]))
        elif row:
            problems.add(path, row, "webhook or file, one of them")
    return tuple(found)


def _settings(sets: Sequence[str], problems: Problems) -> Iterator[dict[str, Any]]:
    """Each line "path=value" as a mapping of mappings."""
    for line in sets:
        path, equals, text = (part.strip() for part in line.partition("="))
        keys = path.split(".")
        if not equals or not all(keys):
            problems.lines.append(f"--set {line!r}: expected path=value, such as method.looks=5")
            continue
        problems.set_paths += (path,)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.say(path, f"the value {text!r} is no YAML")
            continue
        for key in reversed(keys):
            value = {key: value}
        yield value
