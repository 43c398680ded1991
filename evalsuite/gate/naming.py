"""Lays a policy over a suite: columns and groups become benchmark names, and what the suite lacks is a problem."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from evalsuite.benchmark import Benchmark
from evalsuite.errors import PolicyError, did_you_mean
from evalsuite.gate.policy import Policy, Rule
from evalsuite.gate.schema import Problems
from evalsuite.scorecard import SuiteRef
from evalsuite.suite import Suite


def renamed(raw: Mapping[str, Any], suite: Suite | SuiteRef, problems: Problems) -> dict[str, Any]:
    """The merged mapping with benchmark names in place of columns; a group's entry stands below its members' own."""
    names = _names(suite)
    named = dict(raw)
    for section in ("must_not_regress", "safety"):
        if isinstance(raw.get(section), Mapping):
            named[section] = _spread(section, raw[section], names, problems)
    claims = raw.get("must_improve")
    if isinstance(claims, Mapping):
        named["must_improve"] = {key: _claims(key, rows, names, problems) for key, rows in claims.items()}
    slices = raw.get("slices")
    if isinstance(slices, Mapping) and isinstance(slices.get("require"), list):
        named["slices"] = {**slices, "require": [_slice(s, names, problems) for s in slices["require"]]}
    return named


def fitting(policy: Policy, suite: Suite | SuiteRef, problems: Problems) -> None:
    """Notes what the policy asks of the suite and cannot have: another suite, clusters, slices, or nothing at all.

    What a scorecard says of its suite tells names alone, so clusters and slices are not looked at there.
    """
    _suite(policy, suite, problems)
    benchmarks = {b.name: b for b in suite.columns.values()} if isinstance(suite, Suite) else {}
    for path, rule, using in _uses(policy, benchmarks):
        _clusters(path, rule, using, problems)
    for name in policy.safety:
        _category("safety", name, benchmarks, problems)
    for name in policy.slices.require:
        _category("slices.require", name, benchmarks, problems)
    judged = [name for name in _benchmarks(suite).values() if policy.rule(name).tier != "advisory"]
    if not judged and not policy.safety and policy.must_improve is None:
        problems.say("must_not_regress", "every benchmark is advisory, so this policy decides nothing")


def benchmarks_of(suite: SuiteRef) -> dict[str, str]:
    """Column to benchmark of a scorecard's suite, groups spread out; a column that was not scored stands for itself."""
    named = {**suite.columns, **{column: column for column in suite.missing}}
    spread = {column: suite.groups.get(benchmark, (benchmark,)) for column, benchmark in named.items()}
    return {column if len(members) == 1 else b: b for column, members in spread.items() for b in members}


def refuse_categories(policy: Policy, known: Mapping[str, Collection[str]]) -> None:
    """Raises PolicyError for every bound on a category that none of its benchmark's items has.

    `known` holds the categories of each benchmark's items, which only its data tell.
    """
    lines = []
    for name in policy.safety:
        base, slash, category = name.partition("/")
        if slash and base in known and category not in known[base]:
            near, there = did_you_mean(category, known[base]), ", ".join(sorted(known[base])) or "none"
            lines.append(
                f"policy {policy.name}: safety.{name}: {base!r} has no category {category!r}{near} (there are {there})"
            )
    if lines:
        raise PolicyError("\n".join(lines))


def _benchmarks(suite: Suite | SuiteRef) -> dict[str, str]:
    """Column to benchmark name, groups spread out."""
    return {c: b.name for c, b in suite.columns.items()} if isinstance(suite, Suite) else benchmarks_of(suite)


def _names(suite: Suite | SuiteRef) -> dict[str, tuple[str, ...]]:
    """Everything that a policy may call a benchmark: its name, its column, the group it is in."""
    singles = {name: (b,) for column, b in _benchmarks(suite).items() for name in (column, b)}
    return singles | dict(suite.groups)


def _spread(
    section: str, entries: Mapping[str, Any], names: Mapping[str, tuple[str, ...]], problems: Problems
) -> dict[str, Any]:
    """Entries under benchmark names. Groups come first, so that what is said of a member itself counts."""
    found: dict[str, Any] = {}
    own: dict[str, str] = {}
    for name in sorted(entries, key=lambda name: len(names.get(str(name), ())) < 2):
        base, slash, category = str(name).partition("/")
        members = names.get(base)
        if section == "must_not_regress" and name == "default":
            found[name] = entries[name]
        elif members is None or (slash and len(members) > 1):
            _unknown(f"{section}.{name}", base, members, names, problems)
        else:
            for member in members:
                key = f"{member}{slash}{category}"
                if len(members) == 1 and key in own:
                    problems.say(f"{section}.{name}", f"the same benchmark as {own[key]!r}; keep one of the two")
                own |= {key: str(name)} if len(members) == 1 else {}
                found[key] = _over(found.get(key), entries[name])
    return found


def _over(below: Any, above: Any) -> Any:
    return {**below, **above} if isinstance(below, Mapping) and isinstance(above, Mapping) else above


def _unknown(
    path: str, name: str, members: tuple[str, ...] | None, names: Mapping[str, Any], problems: Problems
) -> None:
    if members is None:
        problems.say(path, f"no benchmark or column named {name!r} in the suite{did_you_mean(name, names)}")
    else:
        problems.say(path, f"{name!r} is a group; name one of its benchmarks: {', '.join(members)}")


def _claims(mode: str, rows: Any, names: Mapping[str, tuple[str, ...]], problems: Problems) -> Any:
    """The rows of any_of or all_of, their metrics benchmark names; anything else as it is."""
    if mode not in ("any_of", "all_of") or not isinstance(rows, list):
        return rows
    return [
        {**row, "metric": _metric(f"must_improve.{mode}[{i}].metric", row["metric"], names, problems)}
        if isinstance(row, Mapping) and isinstance(row.get("metric"), str)
        else row
        for i, row in enumerate(rows)
    ]


def _metric(path: str, name: str, names: Mapping[str, tuple[str, ...]], problems: Problems) -> str:
    """The benchmark's name; "macro" and groups, whose mean is claimed to rise, stay as they are."""
    members = names.get(name)
    if name != "macro" and members is None:
        _unknown(path, name, members, {**names, "macro": ()}, problems)
    return members[0] if members and len(members) == 1 else name


def _slice(name: Any, names: Mapping[str, tuple[str, ...]], problems: Problems) -> Any:
    if not isinstance(name, str) or "/" not in name:
        return name
    base, _, category = name.partition("/")
    members = names.get(base)
    if members is None or len(members) > 1:
        _unknown("slices.require", base, members, names, problems)
        return name
    return f"{members[0]}/{category}"


def _suite(policy: Policy, suite: Suite | SuiteRef, problems: Problems) -> None:
    if problems.told("suite"):
        return
    name, _, digest = policy.suite.partition("@sha256:")
    if name != suite.name:
        problems.add("suite", policy.suite, f"a policy for {suite.name!r}, the suite that is gated, or --set suite=")
    elif not suite.digest.startswith(digest):
        problems.add("suite", policy.suite, f"the digest of the suite as it is here, {suite.digest}")


def _uses(policy: Policy, benchmarks: Mapping[str, Benchmark]) -> Iterator[tuple[str, Rule, list[Benchmark]]]:
    """Each rule with its path and the benchmarks that it governs."""
    rest = [b for name, b in benchmarks.items() if name not in policy.rules]
    yield "must_not_regress.default", policy.default, rest
    known = {name: rule for name, rule in policy.rules.items() if name in benchmarks}
    yield from ((f"must_not_regress.{name}", rule, [benchmarks[name]]) for name, rule in known.items())


def _clusters(path: str, rule: Rule, using: list[Benchmark], problems: Problems) -> None:
    """A cluster field must be declared by every benchmark the rule governs, and strata need categories."""

    def lacking(has: Callable[[Benchmark], bool]) -> str:
        return ", ".join(b.name for b in using if not has(b))

    if rule.cluster not in ("default", "none") and (without := lacking(lambda b: rule.cluster in _fields(b))):
        known = dict.fromkeys([f for b in using for f in _fields(b)])
        near = did_you_mean(rule.cluster, known)
        declared = f"default, none or a field it declares ({', '.join(known) or 'there is none'})"
        problems.add(f"{path}.cluster", rule.cluster, f"{declared}: not declared by {without}", near)
    if rule.strata and (without := lacking(_has_categories)):
        problems.add(f"{path}.strata", True, f"false for benchmarks without categories: {without}")


def _fields(benchmark: Benchmark) -> tuple[str, ...]:
    """Words that name a grouping of the benchmark's items."""
    declared = [benchmark.meta.gate_cluster, benchmark.meta.cluster, benchmark.meta.category]
    return tuple(dict.fromkeys([*filter(None, declared), *(["category"] if _has_categories(benchmark) else [])]))


def _has_categories(benchmark: Benchmark) -> bool:
    return benchmark.is_group or benchmark.meta.category is not None


def _category(section: str, name: str, benchmarks: Mapping[str, Benchmark], problems: Problems) -> None:
    """Notes a part of a benchmark that cannot exist; the values of a data field are known to the data alone."""
    base, slash, category = name.partition("/")
    benchmark = benchmarks.get(base)
    if benchmark is None:
        return
    if slash and not _has_categories(benchmark):
        problems.say(f"{section}.{name}", f"{base!r} has no categories")
    elif slash and benchmark.is_group and category != "*":
        known = [t.name.removeprefix(f"{base}_") for t in benchmark.tasks]
        if category not in known:
            problems.say(f"{section}.{name}", f"{base!r} has no category {category!r}{did_you_mean(category, known)}")
