"""Mixing: exact counts after everything, the same bytes whatever the order, nothing half-written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import DataError, UsageError
from tests.hub import write_repo
from tests.tiny import make_tokenizer
from tests.train_plugins.data.mixing import (
    POISON,
    WAIVED,
    Decontam,
    make,
    read,
    row,
    source,
    write_mix,
    write_rows,
)
from train_plugins.data.dedup import Facts, Seen, sort_key
from train_plugins.data.mixfile import Near, load_mix, variant
from train_plugins.data.prompts import prompt_hash, read_prompts
from train_plugins.data.tally import count_words, counter

AGAINST = {"against": ["toy"]}
OUTPUTS = ("m.card.md", "m.jsonl", "m.jsonl.meta.json", "m.prompts", "m.provenance.jsonl")


def rows_of(prefix: str, n: int) -> list[dict[str, Any]]:
    return [row(f"{prefix}{i}", f"question {prefix} {i}", f"answer {i}") for i in range(n)]


def outputs(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("m."))


def test_counts_fractions_and_all_are_exact(tmp_path: Path) -> None:
    for name, n in (("a", 40), ("b", 25), ("c", 3)):
        write_rows(tmp_path / f"{name}.jsonl", rows_of(name, n))
    half = {**source("b.jsonl"), "fraction": 0.5}
    del half["count"]
    meta = make(write_mix(tmp_path, source("a.jsonl", count=17), half, source("c.jsonl")))
    # 17 wanted of 40; half of 25 is 12.5, rounded up to 13; all 3: 33 rows.
    assert {each["name"]: each["rows_out"] for each in meta["sources"]} == {"a": 17, "b": 13, "c": 3}
    assert meta["rows"] == len(read(tmp_path / "m.jsonl")) == 33
    assert meta["digest"] == hashlib.sha256((tmp_path / "m.jsonl").read_bytes()).hexdigest()
    assert outputs(tmp_path) == list(OUTPUTS)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_rows_come_in_the_order_of_the_sha256_of_seed_and_id(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 30))
    make(write_mix(tmp_path, source("a.jsonl", count=10)))
    by_hand = sorted((f"a{i}" for i in range(30)), key=lambda i: hashlib.sha256(f"7\0{i}".encode()).digest())
    assert [each["id"] for each in read(tmp_path / "m.jsonl")] == by_hand[:10]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_bytes_do_not_depend_on_the_order_of_rows_and_files_or_on_processes(tmp_path: Path, processes: int) -> None:
    # 60 rows with 15 prompts four times each: which of the four stays must not hang on which comes first.
    rows = [row(f"r{i}", f"question {i % 15}", f"answer {i}") for i in range(60)]
    digests = set()
    for shuffle in (0, 1):
        random.Random(shuffle).shuffle(rows)
        folder = tmp_path / str(shuffle)
        folder.mkdir()
        cut = (20, 45)[shuffle]
        write_rows(folder / f"x{shuffle}.jsonl", rows[:cut])
        write_rows(folder / f"a{shuffle}.jsonl", rows[cut:])
        path = write_mix(folder, source("*.jsonl", name="both", count=12))
        digests.add(make(path, processes=processes if shuffle else 1)["digest"])
    assert len(digests) == 1


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 30))
    path = write_mix(tmp_path, source("a.jsonl", count=10))
    make(path)
    first = {each["id"] for each in read(tmp_path / "m.jsonl")}
    make(write_mix(tmp_path, source("a.jsonl", count=10), seed=8))
    assert first != {each["id"] for each in read(tmp_path / "m.jsonl")}


@pytest.mark.parametrize(
    ("dedup", "left"),
    [
        # Of source a three rows ask "why?" and two of those are equal; b asks it once more.
        ("prompt", {"a": 2, "b": 1}),
        ("row", {"a": 3, "b": 2}),
        ("none", {"a": 4, "b": 2}),
    ],
)
def test_doubles_go_by_prompt_or_row_and_the_first_source_keeps_them(
    tmp_path: Path, dedup: str, left: dict[str, int]
) -> None:
    why = [row("1", "Why?", "So."), row("2", "why", "So?"), row("3", "Why?", "So."), row("4", "How?")]
    write_rows(tmp_path / "a.jsonl", why)
    write_rows(tmp_path / "b.jsonl", [row("1", "  WHY ?", "For a reason."), row("2", "Where?")])
    meta = make(write_mix(tmp_path, source("a.jsonl"), source("b.jsonl"), dedup=dedup))
    assert {each["name"]: each["left"] for each in meta["sources"]} == left
    for each in meta["sources"]:
        assert each["rows_in"] == each["left"] + sum(each["dropped"].values())


def test_near_doubles_go_where_it_is_asked_for(tmp_path: Path) -> None:
    base = "Explain in a few plain words how a lighthouse keeper saw ships at night in the year 18"
    write_rows(tmp_path / "a.jsonl", [row("1", f"{base}07"), row("2", f"{base}09"), row("3", "Explain tides.")])
    # 88 characters each, one of them replaced: indel ratio 100·(1 - 2/176) = 98.9.
    assert make(write_mix(tmp_path, source("a.jsonl"), near={"ratio": 98}))["sources"][0]["dropped"] == {
        "near_duplicate": 1
    }
    assert make(write_mix(tmp_path, source("a.jsonl"), near={"ratio": 99}))["rows"] == 3
    assert make(write_mix(tmp_path, source("a.jsonl")))["rows"] == 3


def test_near_doubles_are_compared_with_a_bounded_number_of_others() -> None:
    facts = [
        Facts(sort_key(0, str(i)), bytes([i]), bytes([i]), 0, f"{'same start ' * 5} {i:03d} x" * 3) for i in range(20)
    ]
    kept, _ = Seen("none", Near(ratio=100, most=1)).keep(facts)
    assert len(kept) == 20


def test_decontamination_comes_before_counting_so_that_others_of_the_source_step_in(tmp_path: Path) -> None:
    poisoned = [row(f"p{i}", f"{POISON} {i}") for i in range(20)]
    write_rows(tmp_path / "a.jsonl", [*rows_of("a", 20), *poisoned])
    write_rows(tmp_path / "b.jsonl", rows_of("b", 5))
    ask = Decontam()
    meta = make(write_mix(tmp_path, source("a.jsonl", count=20), source("b.jsonl"), decontam=AGAINST), run=ask)
    assert [each["rows_out"] for each in meta["sources"]] == [20, 5]
    assert meta["sources"][0]["dropped"] == {"decontamination": 20}
    assert meta["sources"][0]["eval_hits"] == {"toy": 20}
    assert not any(POISON in each["messages"][0]["content"] for each in read(tmp_path / "m.jsonl"))
    assert [call[0] for call in ask.calls] == ["scan", "clean", "scan"]
    # The report of the finished file lies where a gate looks for it, by the digest of that file.
    report = tmp_path / "results" / "decontam" / meta["decontamination"][0]["report"]
    assert json.loads((report / "verdict.json").read_text())["training"][0]["digest"] == meta["digest"]
    assert ask.calls[0][ask.calls[0].index("--select") + 1] == "messages[role=user].content"


def test_too_few_rows_say_what_became_of_the_others(tmp_path: Path) -> None:
    rows = [*rows_of("a", 10), row("again", "question a 3"), *(row(f"p{i}", f"{POISON} {i}") for i in range(4))]
    write_rows(tmp_path / "a.jsonl", rows)
    write_rows(tmp_path / "b.jsonl", rows_of("b", 2))
    path = write_mix(tmp_path, source("a.jsonl", count=12), source("b.jsonl", count=3), decontam=AGAINST)
    with pytest.raises(DataError) as caught:
        make(path, run=Decontam())
    assert str(caught.value).splitlines() == [
        "a: 12 wanted, 10 left of 15 after duplicate prompt (1) and decontamination (4)",
        "b: 3 wanted, 2 left of 2",
    ]
    assert outputs(tmp_path) == []


@pytest.mark.parametrize(("short", "count", "taken"), [("decontam", 12, 8), ("any", 99, 8), ("decontam", 13, None)])
def test_fewer_rows_are_taken_only_for_a_reason_that_was_named(
    tmp_path: Path, short: str, count: int, taken: int | None
) -> None:
    # 8 clean rows and 4 that go: 12 is what decontamination explains, 13 is not.
    write_rows(tmp_path / "a.jsonl", [*rows_of("a", 8), *(row(f"p{i}", f"{POISON} {i}") for i in range(4))])
    path = write_mix(tmp_path, source("a.jsonl", count=count), short=short, decontam=AGAINST)
    if taken is None:
        with pytest.raises(DataError, match="13 wanted, 8 left"):
            make(path, run=Decontam())
    else:
        assert make(path, run=Decontam())["rows"] == taken


def test_upsampling_takes_whole_passes_and_gives_repeats_ids_of_their_own(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 4))
    meta = make(write_mix(tmp_path, source("a.jsonl", count=10, upsample=True)))
    ids = [each["id"] for each in read(tmp_path / "m.jsonl")]
    # 10 = 2 passes of 4 and 2 rows of a third.
    assert len(set(ids)) == 10
    assert sorted(i.partition("#")[2] for i in ids) == ["", "", "", "", "2", "2", "2", "2", "3", "3"]
    assert meta["sources"][0]["passes"] == 3
    assert {each["row_id"] for each in read(tmp_path / "m.provenance.jsonl")} == {"a0", "a1", "a2", "a3"}


def test_every_row_has_its_provenance_and_ids_of_two_sources_do_not_meet(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row("1", "What?"), row("2", "When?")])
    write_rows(tmp_path / "b.jsonl", [row("1", "Who?")])
    more = {"licence": "cc-by-4.0", "origin": "org/b", "revision": "abc"}
    make(write_mix(tmp_path, source("a.jsonl"), source("b.jsonl", **more)))
    rows, told = read(tmp_path / "m.jsonl"), read(tmp_path / "m.provenance.jsonl")
    assert [(each["id"], each["source"]) for each in rows] == [(each["id"], each["source"]) for each in told]
    assert len({each["id"] for each in rows}) == 3
    of_b = next(each for each in told if each["source"] == "b")
    assert {k: v for k, v in of_b.items() if k != "id"} == {
        "source": "b", "row_id": "1", "origin": "org/b", "revision": "abc", "licence": "CC-BY-4.0",
        "transformations": [],
    }  # fmt: skip
    digest = hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert {each["revision"] for each in told if each["source"] == "a"} == {f"sha256:{digest}"}


def test_the_prompts_of_a_mix_are_kept_as_hashes(tmp_path: Path) -> None:
    talk = row("1", "First, hello.")
    talk["messages"] += [{"role": "user", "content": "And then?"}, {"role": "assistant", "content": "Then."}]
    write_rows(tmp_path / "a.jsonl", [talk, row("2", "5*3")])
    make(write_mix(tmp_path, source("a.jsonl")))
    asked = ["first hello", "AND THEN", "5*3"]
    assert read_prompts(tmp_path / "m.prompts") == {prompt_hash(text) for text in asked}
    assert (tmp_path / "m.prompts").stat().st_size == 3 * 16
    assert prompt_hash("5/3") not in read_prompts(tmp_path / "m.prompts")


@pytest.mark.parametrize("die_at", [1, 2, 3])
def test_a_killed_mix_leaves_nothing_half_written_and_goes_on(tmp_path: Path, die_at: int) -> None:
    rows = [*rows_of("a", 30), *(row(f"p{i}", f"{POISON} {i}") for i in range(5))]
    write_rows(tmp_path / "a.jsonl", rows)
    path = write_mix(tmp_path, source("a.jsonl", count=25), decontam=AGAINST)
    whole = make(path, "whole.jsonl", run=Decontam())
    with pytest.raises(KeyboardInterrupt):
        make(path, run=Decontam(die_at))
    assert outputs(tmp_path) == []
    said: list[str] = []
    assert make(path, run=Decontam(), say=said.append)["digest"] == whole["digest"]
    # Collecting was done before every one of these deaths.
    assert not any(line.startswith("a: 35 rows") for line in said)
    assert outputs(tmp_path) == list(OUTPUTS)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("renames", range(1, 6))
def test_a_mix_killed_while_files_get_their_names_shows_its_data_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 9))
    path = write_mix(tmp_path, source("a.jsonl"))
    make(path)
    write_rows(tmp_path / "a.jsonl", rows_of("a", 10))
    real, done = os.replace, list[Path]()

    def replace(old: Path, new: Path) -> None:
        if Path(new).parent == tmp_path:
            if len(done) == renames - 1:
                raise KeyboardInterrupt
            done.append(Path(new))
        real(old, new)

    with monkeypatch.context() as patched:
        patched.setattr("train_plugins.data.mix.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            make(path)
    # Five files get their names, the data the fifth: until then there is none, not even the one of before.
    assert not (tmp_path / "m.jsonl").exists()
    assert make(path)["rows"] == len(read(tmp_path / "m.jsonl")) == 10
    assert len(read(tmp_path / "m.provenance.jsonl")) == 10


def test_two_processes_do_not_make_the_same_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 2))
    path = write_mix(tmp_path, source("a.jsonl"))
    with (tmp_path / ".m.jsonl.mix.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=r"m\.jsonl: another process is making it"):
            make(path)
    assert make(path)["rows"] == 2


def test_a_hub_source_is_the_split_of_a_folder_of_a_data_root(tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/talks", {"default": {"train": rows_of("a", 4), "test": rows_of("t", 2)}})
    asked = {**source("x"), "hub": "org/talks", "revision": "r1"}
    del asked["path"]
    meta = make(write_mix(tmp_path, asked), roots=[tmp_path / "hub"])
    assert (meta["rows"], meta["sources"][0]["name"], meta["sources"][0]["revision"]) == (4, "talks", "r1")
    with pytest.raises(DataError, match=r"has no split 'tset'; did you mean 'test'\?"):
        make(write_mix(tmp_path, {**asked, "split": "tset"}), roots=[tmp_path / "hub"])
    with pytest.raises(DataError, match="org/talks is not on this machine; expected DIR/<owner>/<name>"):
        make(write_mix(tmp_path, asked))


def test_tokens_are_counted_by_the_tokenizer_that_is_named(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "model", 300)
    count = counter(tmp_path / "model")
    # A byte-level tokenizer without merges for these letters: never fewer tokens than words.
    assert count(row("1", "zq zq", "zq")) >= 3 == count_words(row("1", "zq zq", "zq"))
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        counter(tmp_path)


def test_a_mix_is_made_once_and_again_when_its_sources_change(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 5))
    path = write_mix(tmp_path, source("a.jsonl"))
    first, said = make(path), list[str]()
    make(path, say=said.append)
    assert said == [f"{tmp_path / 'm.jsonl'}: made already of the same sources by the same mix"]
    write_rows(tmp_path / "a.jsonl", rows_of("a", 6))
    assert (make(path)["rows"], first["rows"]) == (6, 5)
    (tmp_path / "m.jsonl").write_text("{}\n")  # what somebody wrote over is made again
    assert make(path)["rows"] == len(read(tmp_path / "m.jsonl")) == 6


def test_hits_are_refused_where_the_mix_says_so(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [*rows_of("a", 3), row("p", POISON)])
    path = write_mix(tmp_path, source("a.jsonl"), decontam={**AGAINST, "on_hit": "refuse"})
    with pytest.raises(DataError, match=r"on_hit: refuse does not allow: a \(toy 1\)"):
        make(path, run=Decontam())


def test_a_source_over_the_limit_on_an_unseen_eval_is_not_used_unless_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [*rows_of("a", 3), row("p", POISON)])
    with pytest.raises(DataError, match=r"over the limit on unseen evals.*a holds toy.*--without a"):
        make(write_mix(tmp_path, source("a.jsonl"), decontam=AGAINST), run=Decontam(action="drop"))
    told = {**AGAINST, "over_limit": "clean"}
    assert make(write_mix(tmp_path, source("a.jsonl"), decontam=told), run=Decontam(action="drop"))["rows"] == 3


def test_a_source_may_be_in_another_format_and_be_narrowed_to_some_rows(tmp_path: Path) -> None:
    alpaca = [
        {"instruction": f"Do {i}", "input": "", "output": "Done.", "lang": "en" if i % 2 else "de"} for i in range(6)
    ]
    write_rows(tmp_path / "a.jsonl", alpaca)
    meta = make(write_mix(tmp_path, source("a.jsonl", format="alpaca", where={"lang": "en"})))
    assert (meta["rows"], meta["sources"][0]["dropped"], meta["sources"][0]["rows_in"]) == (3, {"where": 3}, 6)
    rows = read(tmp_path / "m.jsonl")
    assert sorted(each["messages"][0]["content"] for each in rows) == ["Do 1", "Do 3", "Do 5"]
    assert set(rows[0]) == {"id", "source", "messages"}
    assert read(tmp_path / "m.provenance.jsonl")[0]["transformations"] == ["convert:alpaca"]


def test_preference_pairs_are_mixed_by_the_prompts_that_both_sides_share(tmp_path: Path) -> None:
    def pair(identity: str, prompt: str) -> dict[str, Any]:
        shared = [{"role": "user", "content": prompt}]
        sides = {
            name: [*shared, {"role": "assistant", "content": f"{name} {identity}"}] for name in ("chosen", "rejected")
        }
        return {"id": identity, "source": "s", **sides}

    write_rows(tmp_path / "a.jsonl", [pair("1", "Why?"), pair("2", "Why?"), pair("3", "How?")])
    meta = make(write_mix(tmp_path, source("a.jsonl")))
    assert (meta["kind"], meta["rows"], meta["sources"][0]["dropped"]) == ("preference", 2, {"duplicate_prompt": 1})
    assert len(read_prompts(tmp_path / "m.prompts")) == 2
    write_rows(tmp_path / "b.jsonl", [row("1", "What?")])
    with pytest.raises(DataError, match="b: a row of kind sft among rows of kind preference"):
        make(write_mix(tmp_path, source("a.jsonl"), source("b.jsonl")))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"decontam": {}}, "decontam: name suites"),
        ({"decontam": {"against": ["demo"], **WAIVED}}, "decontam: name suites"),
        ({"licence": {"forbid": ["mit"]}}, "a: the licence MIT is forbidden (--without a leaves it out)"),
        (
            {"sources": [source("a.jsonl", licence="unknown")]},
            "a: the licence is unknown, which licence.unknown forbids",
        ),
        ({"sources": [source("a.jsonl", licence="MIT AND CC-BY-NC-40")]}, "did you mean 'CC-BY-NC-4.0'?"),
        ({"sources": [source("a.jsonl", skills=["maths"])]}, "a: no skill 'maths'; did you mean 'math'?"),
        ({"sources": [source("a.jsonl", skills=[])]}, "a: skills: at least one of knowledge"),
        ({"sources": [source("a.jsonl", made_by="people")]}, "made_by is 'people'; expected human"),
        ({"sources": [source("a.jsonl", fraction=0.5)]}, "a: expected count (a number or all) or fraction"),
        ({"sources": [source("a.jsonl", hub="o/n")]}, "n: expected path or hub, one of the two"),
        ({"sources": [source("a.jsonl", upsample=True)]}, "a: upsample needs a count"),
        ({"sources": [source("a.jsonl"), source("a.jsonl")]}, "two sources are named 'a'"),
        ({"sources": [source("a.jsonl", filters={"languages": ["en"]})]}, "did you mean 'language'?"),
        ({"dedupe": "row"}, "unknown key 'dedupe'; did you mean 'dedup'?"),
        ({"schema": 2}, "schema 2, this version reads 1"),
        ({"near": {"ratio": 5}}, "near: ratio must be from 50 to 100"),
    ],
)
def test_a_mix_file_that_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    content = {"sources": [source("a.jsonl")], **change}
    sources = content.pop("sources")
    with pytest.raises(UsageError) as caught:
        load_mix(write_mix(tmp_path, *sources, **content))
    assert told in str(caught.value)


def test_all_problems_of_a_mix_file_are_told_at_once(tmp_path: Path) -> None:
    bad = source("a.jsonl", licence="unknown", skills=["maths"], made_by="people")
    with pytest.raises(UsageError) as caught:
        load_mix(write_mix(tmp_path, bad, decontam={}))
    assert len(str(caught.value).splitlines()) == 4


def test_missing_sources_are_all_named_and_the_table_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_mix(tmp_path, source("a.jsonl", count=5), source("b.jsonl", count=1200))
    assert main(["data", "mix", str(path), "-o", str(tmp_path / "m.jsonl")]) == 2
    out, err = capsys.readouterr()
    assert "2 of 2 sources of m are not there" in err
    assert "a: no file 'a.jsonl'" in err
    assert [line.split() for line in out.splitlines()][-1] == ["sum", "1,205"]


def test_a_licence_that_the_data_itself_contradicts_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 3))
    (tmp_path / "a.jsonl.meta.json").write_text('{"licence": "CC-BY-NC-4.0"}')
    with pytest.raises(DataError, match=r"a\.jsonl\.meta\.json names the licence 'CC-BY-NC-4\.0', the mix file 'MIT'"):
        make(write_mix(tmp_path, source("a.jsonl")))


def test_rows_that_cannot_be_used_go_only_up_to_a_share(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [*rows_of("a", 7), row("x", "What?", " ")])
    with pytest.raises(DataError, match=r"a: .*a\.jsonl:8: empty_content"):
        make(write_mix(tmp_path, source("a.jsonl")))
    # One of eight rows is 0.125.
    with pytest.raises(DataError, match=r"1 of 8 rows cannot be used, more than max_bad: 0\.1; the first is .*jsonl:8"):
        make(write_mix(tmp_path, source("a.jsonl", max_bad=0.1)))
    meta = make(write_mix(tmp_path, source("a.jsonl", max_bad=0.125)))
    assert (meta["rows"], meta["sources"][0]["rows_in"], meta["sources"][0]["dropped"]) == (7, 8, {"bad_row": 1})


def test_one_id_with_two_contents_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row("1", "What?"), row("1", "When?")])
    with pytest.raises(DataError, match="a: two rows of different content have the id '1'"):
        make(write_mix(tmp_path, source("a.jsonl")))


def test_parts_of_a_mix_have_names_of_their_own(tmp_path: Path) -> None:
    mix = load_mix(write_mix(tmp_path, source("a.jsonl"), source("b.jsonl", skills=["math", "coding"])))
    assert (variant(mix, without=["a"]).name, [s.name for s in variant(mix, without=["a"]).sources]) == (
        "m-without-a",
        ["b"],
    )
    assert (variant(mix, only=["coding"], seed=3).name, variant(mix, seed=7).name) == ("m-only-coding-seed-3", "m")
    with pytest.raises(UsageError, match=r"no source named 'aa'; did you mean 'a'\?"):
        variant(mix, without=["aa"])
    with pytest.raises(UsageError, match="no source is left"):
        variant(mix, without=["a", "b"])


def test_the_command_prints_what_was_taken_and_what_it_is_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 8))
    write_rows(tmp_path / "b.jsonl", rows_of("b", 4))
    path = write_mix(tmp_path, source("a.jsonl", count=6), source("b.jsonl", skills=["math", "chat"]))
    typed = ["data", "mix", str(path), "-o", str(tmp_path / "m.jsonl")]
    assert main([*typed, "--report"]) == 0
    out = capsys.readouterr().out
    # Words of a row: "question a 3" and "answer 3" are five.
    assert ["chat", "10", "50", "100.0", "100.0"] in [line.split() for line in out.splitlines()]
    assert ["math", "4", "20", "40.0", "40.0"] in [line.split() for line in out.splitlines()]
    assert "decontamination waived: made up for a test" in out
    assert main([*typed, "--json", "--without", "b"]) == 0
    meta = json.loads(capsys.readouterr().out)
    assert (meta["rows"], meta["name"], meta["decontamination_waived"]) == (6, "m-without-b", WAIVED["waive"])


def test_the_same_rows_can_be_written_packed(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", rows_of("a", 9))
    path = write_mix(tmp_path, source("a.jsonl"))
    make(path)
    make(path, "z.jsonl.gz")
    import gzip

    assert gzip.decompress((tmp_path / "z.jsonl.gz").read_bytes()) == (tmp_path / "m.jsonl").read_bytes()
    assert (tmp_path / "z.card.md").is_file()
    with pytest.raises(UsageError, match=r"z\.txt: its name ends in none of \.jsonl"):
        make(path, "z.txt")
