"""Review: keys, decisions that survive any stop, and a terminal that data cannot command."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from decontam.cli.review import command
from decontam.errors import DecontamError
from decontam.report.decisions import append_decision, read_decisions
from decontam.report.listing import AHEAD, Ahead
from decontam.report.match import Match, Run
from decontam.report.passages import instances_of
from decontam.report.review import Session, printed, reasons, run
from tests.decontam import clean_outs
from tests.decontam.report.world import Texts, eval_set

EVIL = "plums \x1b]0;title\x07\x1b[2J[bold]and[/bold] \u202eseven"


def a_match(row: int, kind: str = "development", flags: Sequence[str] = ("exact", "capped")) -> Match:
    runs = (Run((0, 5), "question", (0, 5), 8),)
    found = ("train", "f", row, None, 0, "prompt", "one", kind, "one-0", 0.8, tuple(flags), runs, ((8, 10),))
    return Match(*found, 5 / 6, ((5, 6),), 0.25, "tulu3")


def session(out: Path, matches: Sequence[Match], text: str = "plums and honey") -> Session:
    texts = Texts({("train", "f"): [text] * 1000})
    return Session.begin(out, matches, instances_of([eval_set("one", ["plums and honey?"])]), texts, "8-grams")


def screen(chosen: Session, width: int = 80) -> str:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, legacy_windows=False, highlight=False)
    for each in chosen.screen(width):
        console.print(each)
    return out.getvalue()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def press(chosen: Session, keys: str) -> None:
    for key in keys:
        assert chosen.press(key)


def test_keys_walk_decide_and_stop(tmp_path: Path) -> None:
    chosen = session(tmp_path, [a_match(row) for row in range(5)])
    press(chosen, "nnp")
    assert chosen.at == 1
    press(chosen, "ar")
    assert chosen.at == 3, "a decision goes on to the next match"
    assert read_decisions(tmp_path) == {a_match(1).key: "accept", a_match(2).key: "reject"}
    press(chosen, "nnnn")
    assert chosen.at == 4
    press(chosen, "x")
    assert not chosen.press("q")


def test_a_later_decision_on_a_match_counts(tmp_path: Path) -> None:
    chosen = session(tmp_path, [a_match(row) for row in range(3)])
    press(chosen, "apr")
    assert read_decisions(tmp_path) == {a_match(0).key: "reject"}
    assert (chosen.counts, len((tmp_path / "review.jsonl").read_text().splitlines())) == ({"accept": 0, "reject": 1}, 2)
    press(chosen, "pr")
    assert len((tmp_path / "review.jsonl").read_text().splitlines()) == 2, "the same decision again is no line"


def test_review_goes_on_at_the_first_match_without_a_decision(tmp_path: Path) -> None:
    matches = [a_match(row) for row in range(4)]
    press(session(tmp_path, matches), "ana")  # rows 0 and 2
    again = session(tmp_path, matches)
    assert (again.at, again.counts) == (1, {"accept": 2, "reject": 0})
    assert "2 of 4   2 accepted, 0 rejected, 2 left" in plain(screen(again))


def test_a_line_that_a_crash_cut_short_is_forgotten(tmp_path: Path) -> None:
    append_decision(tmp_path, a_match(0), "accept")
    path = tmp_path / "review.jsonl"
    path.write_bytes(path.read_bytes() + b'{"dataset":"train","fi')
    assert read_decisions(tmp_path) == {a_match(0).key: "accept"}
    append_decision(tmp_path, a_match(1), "reject")
    assert read_decisions(tmp_path) == {a_match(0).key: "accept", a_match(1).key: "reject"}


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    append_decision(tmp_path, a_match(0), "accept")
    path = tmp_path / "review.jsonl"
    path.write_text(path.read_text() + path.read_text().replace('"accept"', '"maybe"'))
    with pytest.raises(DecontamError, match=r"review\.jsonl:2 is no decision .*'maybe' is neither"):
        read_decisions(tmp_path)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_both_sides_are_shown_with_their_runs_marked(tmp_path: Path, width: int) -> None:
    shown = screen(session(tmp_path, [a_match(0)]), width)
    assert shown.count("\x1b[30;43mplums\x1b[0m") == 2
    assert "training text" in shown
    assert "one, question" in shown
    assert max(map(len, plain(shown).splitlines())) <= width


def test_data_cannot_command_the_terminal(tmp_path: Path) -> None:
    shown = screen(session(tmp_path, [a_match(0)], EVIL))
    assert "\\x1b]0;title\\x07\\x1b[2J[bold]and[/bold] \\u202eseven" in plain(shown).replace("\n", "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain(shown))


def test_text_of_safety_evals_waits_for_a_key(tmp_path: Path) -> None:
    chosen = session(tmp_path, [a_match(0, "safety"), a_match(1, "safety")])
    assert "plums" not in screen(chosen)
    press(chosen, "o")
    assert "plums" in screen(chosen)
    press(chosen, "n")
    assert "plums" not in screen(chosen), "each is opened for itself"
    press(chosen, "w")
    assert "plums" not in screen(chosen)
    assert "plums" not in "".join(printed(chosen))
    assert "plums" in "".join(printed(chosen, opened=True))


def test_why_says_what_is_covered_and_what_the_cap_leaves(tmp_path: Path) -> None:
    chosen = session(tmp_path, [a_match(0, flags=["exact"])])
    press(chosen, "w")
    assert "question: 8 of 10 positions are in matching windows; 5 of 6 without common" in plain(screen(chosen))
    told = list(reasons(a_match(0, flags=["exact"]), chosen.instances, "8-grams"))
    assert told == [
        "tulu3: 8-grams",
        "question: 8 of 10 positions are in matching windows; 5 of 6 without common ones",
        "25 % of what is covered is in common windows",
        "the cap acquits it: what is common to many instances makes the match",
        "  1  training 0–5, question 0–5, 8 positions: plums",
    ]


def test_texts_are_fetched_for_many_matches_at_once() -> None:
    asked: list[list[int]] = []

    def texts(dataset: str, file: str, rows: object) -> dict[int, dict[int, str]]:
        asked.append(list(rows))  # type: ignore[call-overload]
        return {row: {0: f"text {row}"} for row in asked[-1]}

    ahead = Ahead([a_match(row) for row in range(AHEAD + 50)], texts)  # type: ignore[arg-type]
    assert [ahead.message(at) for at in (0, 5, AHEAD - 1, AHEAD)] == [f"text {at}" for at in (0, 5, AHEAD - 1, AHEAD)]
    assert [len(rows) for rows in asked] == [AHEAD, 50]


def test_a_closed_stdin_ends_the_review(tmp_path: Path) -> None:
    from rich.console import Console

    def closed() -> str:
        raise EOFError

    out = io.StringIO()
    run(session(tmp_path, [a_match(0)]), Console(file=out, width=80), closed)
    assert "one-0" in out.getvalue()


# -- the command --


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rows = [clean_outs.chat(f"Hello. {clean_outs.QUESTION} {EVIL}", id=f"r{i}") for i in range(3)]
    clean_outs.write_lines(tmp_path / "train.jsonl", rows)
    clean_outs.scan(str(tmp_path / "train.jsonl"), tmp_path / "out", rule="fixed-8")  # no spaCy, so no wait
    return tmp_path / "out"


def test_without_a_terminal_all_matches_are_printed(out: Path) -> None:
    result = CliRunner().invoke(command, [str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count(f"Hello. [[1: {clean_outs.QUESTION[:-1]}]]") == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", result.stdout)


def test_a_name_that_no_match_has_is_refused(out: Path) -> None:
    result = CliRunner().invoke(command, [str(out), "--eval", "quizz"])
    assert result.exit_code == 2
    assert "no eval named 'quizz' in this scan; did you mean 'quiz'?" in result.output
    assert CliRunner().invoke(command, [str(out), "--eval", "quiz"]).stdout.count("Hello.") == 3


def test_data_that_changed_is_told_of_once_and_not_shown(out: Path) -> None:
    (out.parent / "train.jsonl").write_text('{"messages": []}\n' * 3)
    result = CliRunner().invoke(command, [str(out)])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("changed since the scan") == 1
    assert result.stdout.count("the text cannot be read") == 3


def test_near_duplicates_of_other_instances_come_behind(out: Path) -> None:
    first = json.loads((out / "matches.jsonl").read_text().splitlines()[0])
    near = {**first, "flags": ["near"], "score": 90.0, "runs": [{"train": [0, 5], "eval": [0, 5]}]}
    clean_outs.write_lines(out / "near.jsonl", [near, {**near, "instance": "quiz-1"}])
    shown = CliRunner().invoke(command, [str(out), "--near"]).stdout
    assert shown.count("near-duplicate, 90.0 of 100") == 1
    assert shown.index("near-duplicate") > shown.rindex("score ")


def test_in_a_terminal_keys_decide(out: Path) -> None:
    """The whole command behind a pseudo-terminal: accept, reject, quit; then the next review goes on."""
    shown = typed(out, "arq")
    assert "1 of 3" in shown
    assert "\x1b]0;" not in shown, "no title was set by the data"
    lines = [json.loads(line) for line in (out / "review.jsonl").read_text().splitlines()]
    assert [(line["row"], line["id"], line["decision"]) for line in lines] == [(0, "r0", "accept"), (1, "r1", "reject")]
    assert "3 of 3" in typed(out, "q")


def typed(out: Path, keys: str) -> str:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    program = [sys.executable, "-c", "from decontam.cli.review import command; command()", str(out)]
    with subprocess.Popen(program, stdin=follower, stdout=follower, stderr=follower, env=environment) as child:
        os.close(follower)
        shown, left, end = "", keys, time.monotonic() + 60
        while child.poll() is None and time.monotonic() < end:
            if select.select([leader], [], [], 0.2)[0]:
                try:
                    shown += os.read(leader, 1 << 16).decode(errors="replace")
                except OSError:
                    break
            if left and "q quit" in shown:  # all keys at once: what is typed ahead must not be lost
                os.write(leader, left.encode())
                left = ""
        try:
            assert child.wait(timeout=10) == 0, shown
        finally:
            child.kill()
    os.close(leader)
    return shown
