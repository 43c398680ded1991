"""`evalsuite doctor`: what works on this machine, and what to type where something does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

EPILOG = """\b
Examples:
  evalsuite doctor
  evalsuite doctor --data-root data/
  evalsuite doctor --engine vllm"""


@click.command("doctor", epilog=EPILOG)
@click.option(
    "--engine", metavar="NAME", help="Also start this engine on a tiny random checkpoint; exits 2 if it fails."
)
@click.option(
    "--data-root",
    "data_roots",
    multiple=True,
    metavar="DIR",
    help="Folder of local copies, DIR/<owner>/<name>; repeatable. [default: EVALSUITE_DATA_ROOT]",
)
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), help="Where results would be written."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(engine: str | None, data_roots: tuple[str, ...], results: Path, as_json: bool) -> int:
    """Say what works on this machine: engines, devices, versions, data, sandbox; and what to type where it does not.

    Reads versions and files only; with --engine that engine is really started.
    """
    from evalsuite.data import data_roots as find_roots
    from evalsuite.doctor import diagnose
    from evalsuite.errors import EngineError

    report = diagnose(find_roots(data_roots), results)
    failure = None
    if engine is not None:
        from evalsuite.doctor.engine import try_engine

        try:
            report["tried"] = try_engine(engine)
        except EngineError as error:
            report["tried"] = {"engine": engine, "error": str(error)}
            failure = error
    if as_json:
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(report)))
    if failure is not None:
        raise failure
    return 0


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as aligned text; last come the problems, each with the command that repairs it."""
    about, python, machine = report["evalsuite"], report["python"], report["machine"]
    commit = f" ({about['commit'][:12]})" if about["commit"] else ""
    yield f"evalsuite  {about['version']}{commit}, Python {python['version']}, {python['platform']}"
    memory = f"{machine['ram_gib']} GiB memory ({machine['ram_free_gib']} free)"
    disk = f"{machine['disk_free_gib']} GiB free for {machine['results']}/"
    yield f"machine    {machine['cores']} cores, {memory}, {disk}"
    yield f"devices    {'; '.join(report['devices']) or 'no GPU'}"
    hub, box = report["hub"], report["sandbox"]
    token = "HF_TOKEN is set" if hub["token"] else "no HF_TOKEN"
    yield f"hub        {'off (HF_HUB_OFFLINE)' if hub['offline'] else 'allowed'}, endpoint {hub['endpoint']}, {token}"
    kernel = f"Landlock version {box['landlock_abi']}" if box["landlock_abi"] else "no Landlock"
    yield f"sandbox    {box['level']} ({kernel}{'; ' + box['why'] if box['why'] else ''})"
    yield "engines"
    yield from _engine_lines(report["engines"])
    yield "packages"
    for name, package in report["packages"].items():
        if package["version"]:
            wanted = f"   outside {package['supported']}" if not package["ok"] else ""
            yield f"  {name:<12} {package['version']}{wanted}"
    yield f"data       {', '.join(report['data']['roots']) or 'no data root (--data-root DIR or EVALSUITE_DATA_ROOT)'}"
    yield from _data_lines(report["data"]["suites"], hub["offline"])
    if "tried" in report:
        yield from _tried_lines(report["tried"])
    yield ""
    if not any(p["needed"] for p in report["problems"]):
        yield "nothing to repair"
    for problem in report["problems"]:
        yield f"{'repair' if problem['needed'] else 'could be better'}: {problem['what']}"
        if problem["repair"]:
            yield f"    {problem['repair']}"


def _engine_lines(engines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, engine in engines.items():
        about = "; ".join(str(part) for part in (engine["version"], engine["why"]) if part)
        yield f"  {name:<6} {'yes' if engine['usable'] else 'no ':<3}  {about}".rstrip()


def _data_lines(suites: Mapping[str, Mapping[str, Any]], offline: bool) -> Iterator[str]:
    for suite, benchmarks in suites.items():
        if "error" in benchmarks:
            yield f"  {suite}: cannot be read"
            continue
        yield f"  {suite}"
        for name, state in benchmarks.items():
            rows = f"{state['rows']} rows" if state["rows"] is not None else ""
            absent = "absent" if offline else "not here: the hub is asked when it is scored"
            shown, why = (absent, "") if state["state"] == "absent" else (state["state"], state["why"])
            yield "    " + "  ".join(filter(None, (f"{name:<12}", f"{shown:<9}", rows, why))).rstrip()


def _tried_lines(tried: Mapping[str, Any]) -> Iterator[str]:
    if "error" in tried:
        yield f"tried      {tried['error']}"
        return
    steps = f"start {tried['start_s']} s, one generation {tried['generate_s']} s"
    yield f"tried      {tried['engine']} works: {steps}, one log-likelihood {tried['loglikelihood_s']} s"
