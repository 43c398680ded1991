"""What `evalsuite loop` and `evalsuite train` ask of the data of a stage: mixes built, reports there, nothing held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark
    from evalsuite.gate.policy import Decontamination
    from evalsuite.loop.data import Against
    from evalsuite.recipe import Recipe, Stage
    from evalsuite.suite import Suite
    from evalsuite.trainers.types import Places


def recipe_file(path: Path | None, shipped: str | None) -> Path:
    """The recipe's file, by its path or by a shipped name; raises UsageError unless exactly one is given."""
    from evalsuite.errors import UsageError
    from evalsuite.trainers.recipes import find_recipe

    if (path is None) == (shipped is None):
        raise UsageError("say which recipe, by a file or by a shipped name: --recipe NAME (evalsuite list --recipes)")
    return path if path is not None else find_recipe(str(shipped))


def places_of(options: Mapping[str, Any]) -> Places:
    """The folders of --benchmarks and --data-root."""
    from evalsuite.data import data_roots
    from evalsuite.trainers.types import Places

    return Places(tuple(options["extra"]), data_roots(options["data_roots"]))


def for_stage(options: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """The options of `evalsuite gate` for a stage's checkpoints, each of which keeps its own name."""
    rule = stage.gate
    own = {"suite": rule.suite, "policy": rule.policy} if rule else {}
    given = {key: options[key] or value for key, value in own.items()}
    fixed = {"against": None, "dry_run": False, "bootstrap": rule is not None and rule.bootstrap, "name": None}
    return {**options, **given, **fixed}


def check_stage_data(
    options: Mapping[str, Any], recipe: Recipe, stage: Stage, mixed: Path, folder: Path, *,
    always: bool = False, waived: bool = False,
) -> None:  # fmt: skip
    """Builds the stage's mixes in `mixed`, then holds all its data against the suite that its checkpoints are judged
    on, or those of the next stage with a gate: what an ungated stage learns is judged there. `decontam.against` adds
    suites. `folder` is the stage's own.

    `always` asks for reports whatever the policy says and though no gate comes, unless they are `waived`.
    """
    from evalsuite.errors import UsageError
    from evalsuite.loop.data import Given, check_data
    from evalsuite.loop.mixes import build_mixes, is_mix
    from evalsuite.loop.plan import data_of, declared

    later = recipe.stages[[s.name for s in recipe.stages].index(stage.name) :]
    judged = next((s for s in later if s.gate is not None), None)
    rule = stage.decontam
    if judged is None and rule.run and not (always or rule.against):
        raise UsageError(f"stage {stage.name!r}: decontam.run, but no gate judges what it trains; against which suite?")
    if not stage.data:
        return
    mixes = [path for text in stage.data if is_mix(path := declared(recipe, stage, text))]
    begun = (folder / "job.json").is_file()
    build_mixes(stage.name, mixes, mixed, options["results"], _mix_options(options), begun=begun)
    against: list[Against | None] = []
    if not waived and (judged is not None or always):
        against = [_against(for_stage(options, judged or stage), rule.run, always)]
    if not waived:
        against += [_also(options, name) for name in rule.against]
    refs = data_of(recipe, stage, mixed)
    files = [recipe.find(ref.path) for ref in refs]
    data = [Given(r, Path(r.location) if is_mix(file) else file) for r, file in zip(refs, files, strict=True)]
    problems: list[str] = []
    for each in against or [None]:
        try:
            check_data(stage.name, data, _by_train(each) if always else each, options["results"], rule)
        except UsageError as error:
            problems += str(error).splitlines()
            if rule.run:
                break  # hours may have gone into a scan that failed; the others would start all the same
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))


def _by_train(against: Against | None) -> Against | None:
    """The same requirement in the words of `evalsuite train`, which can be told to go on."""
    if against is None:
        return None
    or_else = f"{against.or_else}, or train on it all the same: --waive-decontam REASON"
    return replace(against, asks="training", or_else=or_else)


def _mix_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    said = [word for root in options["data_roots"] for word in ("--data-root", str(root))]
    said += [word for folder in options["extra"] for word in ("--benchmarks", str(folder))]
    return (*said, *(["--offline"] if options["offline"] else []))


def _against(own: Mapping[str, Any], run: bool, always: bool) -> Against | None:
    """What reports must be about by the policy of a stage; None where it asks for none and there is none."""
    from evalsuite.cli.gate_job import suite_and_policy
    from evalsuite.gating.evidence import REPORTS
    from evalsuite.loop.data import Against

    suite, policy = suite_and_policy(own)
    rule = policy.decontamination
    if not (rule.required or run or always or (own["results"] / REPORTS).is_dir()):
        return None
    named = own["suite"] or policy.suite.partition("@sha256:")[0]
    return Against(suite.name, _digests(own, suite, always), _required(rule, always), _scan_options(own, named))


def _also(options: Mapping[str, Any], name: str) -> Against:
    """What reports must be about by a suite that the recipe names besides; nothing of it is asked of a model."""
    from evalsuite.gate.policy import Decontamination
    from evalsuite.loop.data import Against
    from evalsuite.suite import load_suite

    suite = load_suite(name, options["extra"], options["regime"], not options["no_quirks"])
    rule = _required(Decontamination(), True)
    return Against(suite.name, _digests(options, suite, True), rule, _scan_options(options, name))


def _required(rule: Decontamination, always: bool) -> Decontamination:
    return replace(rule, required=rule.required or always)


def _digests(own: Mapping[str, Any], suite: Suite, local: bool) -> dict[str, frozenset[str]]:
    """The digests of each benchmark's data. `local`: only what is on this machine; for the rest any report will do."""
    from evalsuite.data import data_roots, resolve_all
    from evalsuite.decontamination import data_digests
    from evalsuite.errors import DataError
    from evalsuite.harness import datasets_of

    roots, aliases = data_roots(own["data_roots"]), suite.aliases or {}

    def digests(benchmarks: list[Benchmark]) -> dict[str, frozenset[str]]:
        specs = [spec for benchmark in benchmarks for spec in datasets_of(benchmark)]
        resolved = resolve_all(specs, roots, offline=own["offline"] or local, aliases=aliases)
        return {benchmark.name: data_digests(benchmark, resolved) for benchmark in benchmarks}

    if not local:
        return digests(list(suite.columns.values()))
    found: dict[str, frozenset[str]] = {}
    for benchmark in suite.columns.values():
        try:
            found |= digests([benchmark])
        except DataError:
            found[benchmark.name] = frozenset()
    return found


def _scan_options(own: Mapping[str, Any], suite: str) -> tuple[str, ...]:
    """What makes `evalsuite decontam scan` read the same benchmarks as the gate."""
    said = ["--suite", suite, *(["--regime", own["regime"]] if own["regime"] else [])]
    said += ["--no-quirks"] if own["no_quirks"] else []
    said += [word for folder in own["extra"] for word in ("--benchmarks", str(folder))]
    said += [word for root in own["data_roots"] for word in ("--data-root", str(root))]
    said += ["--offline"] if own["offline"] else []
    return (*said, *(["--results", str(own["results"])] if own["results"] != Path("results") else []))
