"""From the options of a command line to a gate: suite, policy, candidate, and the references the registry names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evalsuite.cli.engine import allow_code, engine_options, sandbox_options
from evalsuite.cli.gate_plan import complete_policies
from evalsuite.cli.judge import judge_options, make_judges
from evalsuite.cli.options import comma_list, complete_benchmarks, complete_suites, data_options, folder_options
from evalsuite.cli.score import describe_job

if TYPE_CHECKING:
    from evalsuite.gate.policy import Policy
    from evalsuite.gating import GateJob
    from evalsuite.registry import Registry
    from evalsuite.score import Job
    from evalsuite.scorecard import Scorecard, SuiteRef
    from evalsuite.suite import Suite

F = TypeVar("F", bound=Callable[..., Any])


def gate_options(function: F) -> F:
    """Everything that says how a checkpoint is gated: policy, suite, engine, judges, data."""
    options = (
        click.option(
            "--policy", metavar="NAME|FILE", shell_complete=complete_policies, help="[default: the suite's own]"
        ),
        click.option("--suite", shell_complete=complete_suites, help="[default: the policy's]"),
        click.option(
            "--tasks",
            callback=comma_list,
            shell_complete=complete_benchmarks,
            metavar="A,B",
            help="Only these columns of the suite.",
        ),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="PATH=VALUE",
            help="Lay one value over the policy, such as method.looks=5; repeatable.",
        ),
        click.option("--regime", metavar="NAME|FILE", help="Settings of another version. [default: the suite's]"),
        click.option("--no-quirks", is_flag=True, help="Repair the published graders' oddities."),
        engine_options,
        click.option("--name", help="What tables call the checkpoint. [default: its folder]"),
        judge_options,
        click.option("--skip-judged", is_flag=True, help="Leave out what needs a judge."),
        sandbox_options,
        data_options,
        folder_options,
        click.option("--accept-template", is_flag=True, help="The chat template may differ from the champion's."),
        click.option("--no-wait", is_flag=True, help="Do not queue behind another run on the same journal."),
        click.option(
            "--lock", type=click.Choice(["flock", "lease"]), default="flock", help="lease: for NFS and the like."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_gate_job(options: Mapping[str, Any], checkpoint: Path) -> GateJob:
    """The gate that the options describe; every problem is found before an engine or a dataset is loaded."""
    from evalsuite.checkpoint.files import find_files
    from evalsuite.errors import UsageError
    from evalsuite.gating import GateJob
    from evalsuite.registry import Registry

    registry = Registry.at(options["results"], lock=options["lock"])
    if checkpoint.suffix == ".json" and checkpoint.is_file():
        return _stored_job(options, checkpoint, registry)
    suite, policy = suite_and_policy(options)
    columns = suite.select(options["tasks"])
    if options["engine"].startswith("api:"):
        raise click.UsageError(
            "a gate asks two checkpoints, and an api: endpoint serves one; score both and gate the scorecards: "
            "evalsuite gate NEW.json --against OLD.json"
        )
    if not checkpoint.is_dir():  # its name is wrong: said before anything that is asked of the rest of the line
        find_files(checkpoint, allow_pickle=options["allow_pickle"], trust_remote_code=options["trust_remote_code"])
    judges, skipped = make_judges(options, columns)
    columns = {c: b for c, b in columns.items() if c not in skipped}
    if not columns:
        raise click.UsageError(f"--skip-judged leaves nothing to gate: {', '.join(skipped)} need a judge")
    allow_code(options)

    def job(folder: Path, name: str | None = None) -> Job:
        return describe_job({**options, "name": name}, folder, suite, columns, judges)

    candidate = job(checkpoint, options["name"])
    champion, ref, generation = _reference(options["against"] or policy.champion, registry, job)
    if ref is None:
        against = options["against"]
        ref, generation = _ref_of(policy, registry, champion) if against else (None, None)
    anchor, _, anchor_generation = _anchor(policy, registry, job) if champion is not None else (None, None, None)
    mine = candidate.checkpoint.digest
    if champion is not None and champion.checkpoint.digest == mine:
        raise UsageError(f"{checkpoint} is {options['against'] or policy.champion} already; there is nothing to gate")
    if anchor is not None and champion is not None and anchor.checkpoint.digest in (champion.checkpoint.digest, mine):
        anchor, anchor_generation = None, None  # one comparison, or none: the anchor is as good as itself
    partial = f"{len(columns)} of {len(suite.columns)} benchmarks" if len(columns) < len(suite.columns) else ""
    if partial:
        if options.get("promote"):
            raise UsageError(
                f"a gate over {partial} of {suite.name} promotes nobody; gate all of it, or write a suite file of "
                "these columns and give it with --suite"
            )
        ref, generation = None, None
    return GateJob(
        policy=policy,
        candidate=candidate,
        champion=champion,
        anchor=anchor,
        partial=partial,
        ref=ref,
        generation=generation,
        anchor_generation=anchor_generation,
        registry=registry,
        results=options["results"],
        bootstrap=bool(options["bootstrap"]) and champion is None,
        accept_template=options["accept_template"],
        dry_run=bool(options.get("dry_run")),
    )


def suite_and_policy(options: Mapping[str, Any]) -> tuple[Suite, Policy]:
    """The policy laid over its suite; refused when the suite is unseen, or is not the one that the policy pins."""
    from evalsuite.errors import PolicyError
    from evalsuite.gate.reading import load_policy
    from evalsuite.suite import load_suite
    from evalsuite.unseen import refuse

    wanted, _, pinned = load_policy(options["policy"], options["sets"]).suite.partition("@sha256:")
    suite = load_suite(options["suite"] or wanted, options["extra"], options["regime"], not options["no_quirks"])
    refuse(suite, suite.columns)
    policy = load_policy(options["policy"], options["sets"], suite=suite)
    digest = suite.ref(list(suite.columns)).digest
    if pinned and not digest.startswith(pinned):
        raise PolicyError(
            f"the policy is for {wanted}@sha256:{pinned[:12]}, and {suite.name} is {digest[:12]} here; read what "
            "changed, then pin the new digest"
        )
    return suite, policy


MakeJob = Callable[..., "Job"]


def _reference(name: str, registry: Registry, job: MakeJob) -> tuple[Job | None, str | None, int | None]:
    """(job, ref, its generation) of a ref's name or a folder; no job for a ref that does not exist yet."""
    from evalsuite.errors import UsageError, did_you_mean
    from evalsuite.registry import REFS

    if name in REFS:
        ref = registry.ref(name)
        return (_promoted(name, ref.id, registry, job), name, ref.generation) if ref else (None, name, None)
    if not Path(name).is_dir():
        near = did_you_mean(name, REFS)
        raise UsageError(f"--against {name!r}: no folder and no ref{near}; there are {', '.join(REFS)}")
    return job(Path(name)), None, None


def _promoted(name: str, digest: str, registry: Registry, job: MakeJob) -> Job:
    """The job of a checkpoint that the registry points to; its folder must still hold the same bytes."""
    from evalsuite.errors import CheckpointError, RegistryError

    manifest = registry.manifest(digest)
    if manifest is None:
        raise RegistryError(f"the registry has no manifest of {name} ({digest[:12]}); see: evalsuite registry verify")
    known = manifest["checkpoint"]
    folder = Path(known["path"])
    if not folder.is_dir():
        raise CheckpointError(
            f"{name} is gone: {folder} ({known['name']}, {digest[:12]}); put it back, or name another: --against FOLDER"
        )
    found = job(folder, known["name"])
    if found.checkpoint.digest != digest:
        raise CheckpointError(
            f"{folder} changed since it became {name} ({found.checkpoint.digest[:12]}, was {digest[:12]}); put the old "
            "files back, or name another: --against FOLDER"
        )
    return found


def _ref_of(policy: Policy, registry: Registry, champion: Job | None) -> tuple[str | None, int | None]:
    """A folder named by its path may be the champion's own: then the verdict counts for it."""
    ref = registry.ref(policy.champion)
    if ref is not None and champion is not None and ref.id == champion.checkpoint.digest:
        return policy.champion, ref.generation
    return None, None


def _anchor(policy: Policy, registry: Registry, job: MakeJob) -> tuple[Job | None, str | None, int | None]:
    if policy.anchor is None or registry.ref(policy.anchor) is None:
        return None, None, None
    return _reference(policy.anchor, registry, job)


def _stored_job(options: Mapping[str, Any], file: Path, registry: Registry) -> GateJob:
    """A gate over two scorecards: nothing is asked, and nothing can become champion by it."""
    from evalsuite.errors import UsageError
    from evalsuite.gate.reading import load_policy
    from evalsuite.gating import GateJob
    from evalsuite.gating.stored import completed, suite_of
    from evalsuite.unseen import refuse_cards

    against = options["against"]
    if options.get("promote"):
        raise UsageError(
            f"{file}: a scorecard cannot be promoted; gate the checkpoint's folder: evalsuite gate CKPT --promote"
        )
    if against is None or not Path(against).is_file():
        raise UsageError(f"{file} is a scorecard, and is compared with another one: --against OLD.json")
    candidate, champion = _card(file), _card(Path(against))
    refuse_cards([candidate, champion])
    suite = suite_of(candidate.suite, options["suite"], options["extra"], options["regime"])
    candidate, champion = completed(candidate, suite), completed(champion, suite)
    sets = [*options["sets"], "samples.when=[]", "samples.default=1", "infra=[]"]
    policy = load_policy(options["policy"], sets, suite=suite or _both(candidate, champion))
    return GateJob(policy=policy, candidate=candidate, champion=champion, results=options["results"], dry_run=True)


def _both(candidate: Scorecard, champion: Scorecard) -> SuiteRef:
    """The suite as far as two scorecards tell it: a column that only one of them has may still be named."""
    mine, theirs = candidate.suite, champion.suite
    columns = {**theirs.columns, **mine.columns}
    missing = tuple(column for column in mine.missing if column not in columns)
    return replace(mine, columns=columns, missing=missing, groups={**theirs.groups, **mine.groups})


def _card(file: Path) -> Scorecard:
    from evalsuite.errors import UsageError
    from evalsuite.tables.collect import load

    card = load(file)
    if card is None:
        raise UsageError(f"{file}: not a scorecard; expected the JSON file that `evalsuite score` names at its end")
    return card
