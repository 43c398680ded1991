"""The journal keeps every finished answer through kill -9, torn lines, full disks and second writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.errors import DiskFull, JournalError
from evalsuite.journal import Journal, KeyMaker
from evalsuite.types import Failed, GenerateRequest, LogLikelihood, LoglikRequest, Prompt, Response, Sampling

REQUEST = GenerateRequest(Prompt("2+2="), Sampling(max_tokens=8, stop=("\n",)))
CHOICE = LoglikRequest(Prompt("2+2="), (" 4", " 5"))
KEYS = KeyMaker("checkpoint", "benchmark", {"engine": "hf", "dtype": "float32"})


def open_journal(folder: Path, **options: bool) -> Journal:
    return Journal(folder, {"benchmark": "b"}, **options)


@pytest.mark.parametrize(
    "answer",
    [
        Response("four", "stop", 1),
        Response("", "length", 0, thinking="hm\u2028", shrunk=True),
        Response("lone \ud800 surrogate, \x00 control, 漢字", "stop", 3, tokens=(1, 2), logprobs=(-0.1, -2.5e-7)),
        Response("", "error", why="the prompt leaves no room"),
        (LogLikelihood(-1.2345678806304932, True, 1), LogLikelihood(float("-inf"), False, 2)),
        Failed("option 2 has no tokens of its own"),
    ],
)
def test_an_answer_comes_back_as_it_was_written(tmp_path: Path, answer: object) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("key", "sample", 0, answer)  # type: ignore[arg-type]
    with open_journal(tmp_path) as journal:
        stored = journal.get("key")
    assert stored is not None
    assert stored.answer == answer


def test_an_answer_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("key", "sample", 0, Response("kept"))
        (segment,) = tmp_path.glob("*.jsonl")
        assert json.loads(segment.read_text().splitlines()[1])["text"] == "kept"


def test_a_torn_last_line_is_cut_and_said_and_the_rest_is_kept(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("first", "a", 0, Response("whole"))
        journal.append("second", "b", 0, Response("torn"))
    (segment,) = tmp_path.glob("*.jsonl")
    os.truncate(segment, segment.stat().st_size - 5)
    said: list[str] = []
    with Journal(tmp_path, {}, say=said.append) as journal:
        assert journal.get("first") is not None
        assert journal.get("second") is None
    assert "cut off by a crash" in said[0]
    assert segment.read_bytes().endswith(b"\n")


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_overwritten(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("first", "a", 0, Response("whole"))
    (segment,) = tmp_path.glob("*.jsonl")
    before = segment.read_bytes() + b"{broken\n" + b'{"key":"x","kind":"gen","text":"","finish":"stop","n_tokens":0}\n'
    segment.write_bytes(before)
    with pytest.raises(JournalError, match=r"line 3: not JSON"):
        open_journal(tmp_path)
    assert segment.read_bytes() == before


def test_a_journal_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"header": {}, "schema": 99, "generation": 0}\n')
    with pytest.raises(JournalError, match="schema 99, this version reads 1"):
        open_journal(tmp_path)


def test_failed_answers_are_marked_and_a_later_success_replaces_them(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("key", "a", 0, Response("", "error", why="timeout"))
    with open_journal(tmp_path) as journal:
        stored = journal.get("key")
        assert stored is not None
        assert stored.failed
        journal.append("key", "a", 0, Response("fine"))
    with open_journal(tmp_path) as journal:
        stored = journal.get("key")
        assert stored is not None
        assert stored.answer == Response("fine")


def test_fresh_starts_over_and_keeps_the_old_segments(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.append("key", "a", 0, Response("old"))
    with open_journal(tmp_path, fresh=True) as journal:
        assert journal.get("key") is None
        journal.append("key", "a", 0, Response("new"))
    with open_journal(tmp_path) as journal:
        stored = journal.get("key")
    assert stored is not None
    assert stored.answer == Response("new")
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def keep(folder: Path, answers: dict[str, Response], **options: bool) -> None:
    with open_journal(folder, **options) as journal:
        for key, answer in answers.items():
            journal.append(key, "a", 0, answer)


def stored_texts(folder: Path) -> dict[str, str]:
    with open_journal(folder) as journal:
        return {key: stored.answer.text for key in "abc" if (stored := journal.get(key))}  # type: ignore[union-attr]


def test_asked_again_only_what_was_asked_is_replaced(tmp_path: Path) -> None:
    keep(tmp_path, {"a": Response("a1"), "b": Response("b1")})
    with open_journal(tmp_path, again=True) as journal:
        assert journal.get("a") is None
        journal.append("a", "a", 0, Response("a2"))
    with open_journal(tmp_path) as journal:
        assert (journal.opening.n_answers, journal.opening.n_conflicts) == (2, 0)
    assert stored_texts(tmp_path) == {"a": "a2", "b": "b1"}
    keep(tmp_path, {"c": Response("c1")})  # a run in between belongs to the newest generation and hides nothing
    keep(tmp_path, {"a": Response("a3")}, again=True)
    assert stored_texts(tmp_path) == {"a": "a3", "b": "b1", "c": "c1"}
    keep(tmp_path, {"b": Response("b2")}, fresh=True)
    assert stored_texts(tmp_path) == {"b": "b2"}


def test_an_answer_that_failed_when_asked_again_is_not_the_old_one(tmp_path: Path) -> None:
    keep(tmp_path, {"a": Response("a1")})
    keep(tmp_path, {"a": Response("", "error", why="timeout")}, again=True)
    with open_journal(tmp_path) as journal:
        stored = journal.get("a")
        assert stored is not None
        assert stored.failed
    keep(tmp_path, {"a": Response("a2")})
    assert stored_texts(tmp_path) == {"a": "a2"}


def test_segments_that_say_only_their_generation_are_read_as_ever(tmp_path: Path) -> None:
    keep(tmp_path, {"a": Response("a1"), "b": Response("b1")})
    keep(tmp_path, {"a": Response("a2")}, fresh=True)
    for segment in tmp_path.glob("*.jsonl"):
        header, _, rest = segment.read_text().partition("\n")
        older = {name: value for name, value in json.loads(header).items() if name != "since"}
        segment.write_text(f"{json.dumps(older)}\n{rest}")
    assert stored_texts(tmp_path) == {"a": "a2"}


def test_two_answers_to_one_question_that_differ_are_counted_and_the_first_counts(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "two")):
        with open_journal(tmp_path / name) as journal:
            journal.append("key", "a", 0, Response(text))
    merged = tmp_path / "merged"
    merged.mkdir()
    for name in ("a", "b"):
        (segment,) = (tmp_path / name).glob("*.jsonl")
        segment.rename(merged / f"{name}.jsonl")
    with open_journal(merged) as journal:
        stored = journal.get("key")
        assert stored is not None
        assert stored.answer == Response("one")
        assert journal.opening.n_conflicts == 1


def test_a_second_process_is_refused_or_waits(tmp_path: Path) -> None:
    held = open_journal(tmp_path)
    program = textwrap.dedent(f"""
        from pathlib import Path
        from evalsuite.journal import Journal
        with Journal(Path({str(tmp_path)!r}), {{}}, wait=True, say=print) as journal:
            print("open", journal.get("key") is not None, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert "waiting" in waiting.stdout.readline()
        with pytest.raises(JournalError, match="in use by another evalsuite process"):
            open_journal(tmp_path, wait=False)
        held.append("key", "a", 0, Response("late"))
        held.close()
        assert waiting.stdout.readline() == "open True\n"


def test_a_full_disk_stops_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from evalsuite.errors import DiskFull
        from evalsuite.journal import Journal
        from evalsuite.types import Response
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with Journal(Path({str(tmp_path)!r}), {{}}) as journal:
            try:
                for i in range(1000):
                    journal.append(f"key{{i}}", "a", 0, Response("x" * 100))
            except DiskFull as error:
                print(error)
                raise SystemExit(error.exit_code)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no room to write the journal" in done.stdout
    (segment,) = tmp_path.glob("*.jsonl")
    assert segment.read_bytes().endswith(b"}\n")
    n_lines = len(segment.read_text().splitlines()) - 1
    with open_journal(tmp_path) as journal:
        assert journal.opening.n_answers == n_lines > 5
        assert journal.opening.torn == ()


def test_kill_9_while_writing_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        from pathlib import Path
        from evalsuite.journal import Journal
        from evalsuite.types import Response
        with Journal(Path({str(tmp_path)!r}), {{}}) as journal:
            for i in range(10**9):
                journal.append(f"key{{i}}", "a", 0, Response("x" * 200))
                print(i, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        process.kill()
        said = process.stdout.read().split()
    with open_journal(tmp_path) as journal:
        # The pipe may hold half a number at its end; every number before it was said after its line was written.
        assert all(journal.get(f"key{i}") is not None for i in said[:-1])
    assert len(said) > 10


def test_everything_an_answer_depends_on_changes_the_key() -> None:
    same = KEYS.key("sample", 0, REQUEST)
    sampling = REQUEST.sampling
    variants = [
        KeyMaker("other", "benchmark", {"engine": "hf", "dtype": "float32"}).key("sample", 0, REQUEST),
        KeyMaker("checkpoint", "other", {"engine": "hf", "dtype": "float32"}).key("sample", 0, REQUEST),
        KeyMaker("checkpoint", "benchmark", {"engine": "vllm", "dtype": "float32"}).key("sample", 0, REQUEST),
        KeyMaker("checkpoint", "benchmark", {"engine": "hf", "dtype": "bfloat16"}).key("sample", 0, REQUEST),
        KEYS.key("other", 0, REQUEST),
        KEYS.key("sample", 1, REQUEST),
        KEYS.key("sample", 0, replace(REQUEST, prompt=Prompt("2+3="))),
        KEYS.key("sample", 0, replace(REQUEST, prompt=Prompt("2+2=", chat=True))),
        *(
            KEYS.key("sample", 0, replace(REQUEST, sampling=changed))
            for changed in (
                replace(sampling, max_tokens=9),
                replace(sampling, stop=()),
                replace(sampling, temperature=0.5),
                replace(sampling, top_p=0.5),
                replace(sampling, top_k=5),
                replace(sampling, min_p=0.5),
                replace(sampling, seed=1),
            )
        ),
        KEYS.key("sample", 0, CHOICE),
        KEYS.key("sample", 0, replace(CHOICE, options=(" 4", " 6"))),
        KEYS.key("sample", 0, replace(CHOICE, options=(" 4 5",))),
    ]
    assert len({same, *variants}) == len(variants) + 1
    assert KEYS.key("sample", 0, replace(REQUEST)) == same


def test_full_disk_is_an_error_a_user_can_fix() -> None:
    assert DiskFull("no room").exit_code == 2
