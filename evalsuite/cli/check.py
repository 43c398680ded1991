"""`evalsuite check`: proves benchmarks without a model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from evalsuite.cli.options import comma_list, complete_benchmarks

EPILOG = """\b
Examples:
  evalsuite check
  evalsuite check --data-root data/
  evalsuite check --tasks gsm8k --data-root data/ --print-prompts 2 --checkpoint ckpt/"""


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
@click.option(
    "--benchmarks",
    "extra",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with benchmark folders of your own; repeatable.",
)
@click.option(
    "--print-prompts",
    "n_prompts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print the first N prompts of every benchmark exactly as a model gets them.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Whose chat template --print-prompts uses.")
@click.option("--chat-template", metavar="FILE|name:NAME", help="Instead of the checkpoint's chat template.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    tasks: tuple[str, ...] | None,
    data_roots: tuple[str, ...],
    hub: bool,
    extra: tuple[Path, ...],
    n_prompts: int | None,
    checkpoint: Path | None,
    chat_template: str | None,
    as_json: bool,
) -> int:
    """Prove that every benchmark loads, grades its hand-written cases and accepts its own gold answers.

    Gold answers are checked on the real rows, where a data root has them. Exits 2 when anything is wrong.
    """
    from evalsuite import data
    from evalsuite.benchmark import find_benchmark
    from evalsuite.checking import check

    roots = data.data_roots(data_roots)
    for name in tasks or ():
        find_benchmark(name, extra)
    if n_prompts is not None:
        _print_prompts(tasks, extra, roots, n_prompts, checkpoint, chat_template)
        return 0
    findings = []
    for finding in check(tasks, extra, roots, hub=hub):
        findings.append(finding)
        if not as_json:
            golds = (
                ""
                if finding.n_golds is None
                else f", {finding.n_golds - len(finding.rejected)}/{finding.n_golds} golds"
            )
            notes = "".join(f"; {n}" for n in finding.notes)
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.benchmark}: {finding.n_cases} cases{golds}{notes}")
            for problem in finding.problems:
                click.echo(f"     {problem}")
    if as_json:
        rows = [
            {"benchmark": f.benchmark, "ok": f.ok, "problems": f.problems, "n_cases": f.n_cases, "n_golds": f.n_golds}
            | {"rejected": f.rejected, "notes": f.notes}
            for f in findings
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    return 0 if all(f.ok for f in findings) else 2


def _print_prompts(
    tasks: tuple[str, ...] | None,
    extra: tuple[Path, ...],
    roots: tuple[Path, ...],
    n: int,
    checkpoint: Path | None,
    chat_template: str | None,
) -> None:
    from evalsuite.benchmark import find_benchmark, known_benchmarks
    from evalsuite.checking import prompts
    from evalsuite.models.chat import ChatTemplate
    from evalsuite.models.encoding import Encoder

    if checkpoint is None:
        raise click.UsageError("--print-prompts needs --checkpoint DIR, whose tokenizer and chat template are used")
    encoder = Encoder.from_checkpoint(checkpoint)
    for name in tasks or known_benchmarks(extra):
        benchmark = find_benchmark(name, extra)
        render = ChatTemplate.from_checkpoint(checkpoint, chat_template).render if benchmark.meta.chat else None
        for sample, text in prompts(benchmark, roots, render, n):
            n_tokens = len(encoder.encode(text, chat=benchmark.meta.chat))
            click.echo(f"--- {name} {sample} ({n_tokens} tokens)\n{text}\n--- end")
