"""`evalsuite check`: proves benchmarks without a model, and measures how far a judge can be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.judge import judge_options
from evalsuite.cli.options import benchmarks_option, comma_list, complete_benchmarks, results_option

if TYPE_CHECKING:
    from evalsuite.checking import Finding

EPILOG = """\b
Examples:
  evalsuite check
  evalsuite check --data-root data/
  evalsuite check --tasks gsm8k --data-root data/ --print-prompts 2 --checkpoint ckpt/
  evalsuite check --judge href=vllm:judge/ --data llmbar.jsonl

With --judge, crafted responses try to win against honest answers in both orders, and --data (LLMBar: input, output_1,
output_2, label, subset) adds agreement with people. The result is kept with the judge and shown beside its scores."""


@click.command("check", epilog=EPILOG)
@click.option(
    "--tasks", callback=comma_list, shell_complete=complete_benchmarks, metavar="A,B", help="Only these benchmarks."
)
@click.option(
    "--data-root",
    "data_roots",
    multiple=True,
    metavar="DIR",
    help="Folder of local copies, DIR/<owner>/<name>; repeatable. [default: EVALSUITE_DATA_ROOT]",
)
@click.option("--hub", is_flag=True, help="Load what is in no data root from the hub.")
@benchmarks_option
@click.option(
    "--print-prompts",
    "n_prompts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print the first N prompts of every benchmark exactly as a model gets them.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Whose chat template --print-prompts uses.")
@click.option("--chat-template", metavar="FILE|name:NAME", help="Instead of the checkpoint's chat template.")
@judge_options
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="JSONL",
    help="LLMBar, for the agreement of a --judge with people.",
)
@results_option("Where a judge's answers and its calibration are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(**options: Any) -> int:
    """Prove that every benchmark loads, grades its hand-written cases and accepts its own gold answers.

    Gold answers are checked on the real rows, where a data root has them. Exits 2 when anything is wrong.
    """
    if options["judges"]:
        if options["tasks"] is not None or options["n_prompts"] is not None:
            raise click.UsageError("--judge calibrates judges; --tasks and --print-prompts are for benchmarks")
        _check_judges(options)
        return 0
    if options["data"] is not None:
        raise click.UsageError("--data is for --judge")
    return _check_benchmarks(options)


def _check_benchmarks(options: Mapping[str, Any]) -> int:
    from evalsuite.benchmark import find_benchmark
    from evalsuite.checking import check
    from evalsuite.data import data_roots

    tasks, extra, as_json = options["tasks"], options["extra"], options["as_json"]
    roots = data_roots(options["data_roots"])
    for name in tasks or ():
        find_benchmark(name, extra)
    if options["n_prompts"] is not None:
        _print_prompts(options, roots)
        return 0
    findings = []
    for finding in check(tasks, extra, roots, hub=options["hub"]):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    if as_json:
        rows = [
            {"benchmark": f.benchmark, "ok": f.ok, "problems": f.problems, "n_cases": f.n_cases, "n_golds": f.n_golds}
            | {"rejected": f.rejected, "notes": f.notes}
            for f in findings
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    return 0 if all(f.ok for f in findings) else 2


def _print_finding(finding: Finding) -> None:
    n = finding.n_golds
    golds = "" if n is None else f", {n - len(finding.rejected)}/{n} golds"
    notes = "".join(f"; {note}" for note in finding.notes)
    click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.benchmark}: {finding.n_cases} cases{golds}{notes}")
    for problem in finding.problems:
        click.echo(f"     {problem}")


def _print_prompts(options: Mapping[str, Any], roots: tuple[Path, ...]) -> None:
    from evalsuite.benchmark import find_benchmark, known_benchmarks
    from evalsuite.checking import prompts
    from evalsuite.models.chat import TEMPLATE_DATE, ChatTemplate
    from evalsuite.models.encoding import Encoder

    checkpoint, template, extra = options["checkpoint"], options["chat_template"], options["extra"]
    if checkpoint is None:
        raise click.UsageError("--print-prompts needs --checkpoint DIR, whose tokenizer and chat template are used")
    encoder = Encoder.from_checkpoint(checkpoint)
    for name in options["tasks"] or known_benchmarks(extra):
        benchmark = find_benchmark(name, extra)
        chat = benchmark.meta.chat
        render = ChatTemplate.from_checkpoint(checkpoint, template, now=TEMPLATE_DATE).render if chat else None
        for sample, text in prompts(benchmark, roots, render, options["n_prompts"]):
            n_tokens = len(encoder.encode(text, chat=chat))
            click.echo(f"--- {name} {sample} ({n_tokens} tokens)\n{text}\n--- end")


def _check_judges(options: Mapping[str, Any]) -> None:
    """Calibrates every judge that was given, one after another; benchmarks of the user may bring protocols."""
    from evalsuite.benchmark import known_benchmarks
    from evalsuite.calibration import calibrate, read_llmbar
    from evalsuite.cli.judge import choose_judges, judge_of
    from evalsuite.judge import parse_spec
    from evalsuite.progress import observer
    from evalsuite.provenance import command_line

    rows = read_llmbar(options["data"]) if options["data"] is not None else []
    near = tuple(known_benchmarks(options["extra"]).values())
    pairs = [(spec, parse_spec(spec, near).protocol or "href") for spec in options["judges"]]
    for chosen in choose_judges(pairs, options, near):
        watcher = observer()
        try:
            with judge_of(chosen, options) as judge:
                found = calibrate(judge, options["results"], rows, observer=watcher, command=command_line())
        finally:
            watcher.close()
        if options["as_json"]:
            click.echo(json.dumps({"judge": judge.identity(), "calibration": found}, indent=1, ensure_ascii=False))
        else:
            _print_calibration(f"{judge.name} ({judge.protocol.name}, {judge.digest[:12]})", found)


def _print_calibration(name: str, found: Mapping[str, Any]) -> None:
    click.echo(f"judge {name}")
    click.echo(
        f"  crafted responses win {found['attack_success']:+.1%} more often than a plain bad answer "
        f"({found['plain_bad_win_rate']:.1%}), over {found['attack_pairs']} comparisons"
    )
    for attack, one in sorted(found["attacks"].items(), key=lambda item: (-item[1]["success"], item[0])):
        lost = f", {one['n_failed']} without a verdict" if one["n_failed"] else ""
        click.echo(f"    {one['success']:+7.1%}  {attack} (n {one['n']}{lost})")
    for subset, one in found.get("llmbar", {}).items():
        lost = f", {one['n_failed']} without a verdict" if one["n_failed"] else ""
        click.echo(
            f"  LLMBar {subset}: agrees with people {one['accuracy']:.1%} [{one['low']:.1%}, {one['high']:.1%}], "
            f"flips with the order {one['flip_rate']:.1%} (n {one['n']}{lost})"
        )
