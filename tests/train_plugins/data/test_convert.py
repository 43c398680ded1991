"""Conversion as a whole: all or nothing, every defect told once, the facts of real files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import DataError, UsageError
from tests.hub import write_repo
from train_plugins.data.convert import Converted, ConvertOptions, convert
from train_plugins.data.rows import RowRules, content_id, read_meta, read_rows
from train_plugins.data.sources import open_source


def alpaca(n: int) -> list[dict[str, Any]]:
    return [{"instruction": f"q{i}", "input": "", "output": f"r{i}"} for i in range(n)]


def written(path: Path, rows: Sequence[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def converted(path: Path, out: Path, **options: Any) -> Converted:
    return convert([open_source(str(path))], out, ConvertOptions(**options))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_rows_get_id_and_source_and_a_sidecar_says_where_they_come_from(tmp_path: Path) -> None:
    source = written(tmp_path / "own.v1.jsonl", [{**alpaca(1)[0], "answer": "r"}, {**alpaca(2)[1], "id": 7}])
    done = converted(source, tmp_path / "out.jsonl", meta={"licence": "MIT"})
    first, second = read_rows(tmp_path / "out.jsonl")
    messages = [{"role": "user", "content": "q0"}, {"role": "assistant", "content": "r0"}]
    assert first == {"id": content_id({"messages": messages}), "source": "own", "messages": messages}
    assert (second["id"], list(second)) == ("7", ["id", "source", "messages"])
    assert done.written is not None
    assert read_meta(tmp_path / "out.jsonl") == {
        "schema": 1,
        "digest": hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest(),
        "rows": 2,
        "kind": "sft",
        "format": "messages",
        "origin": "",
        "licence": "MIT",
        "sources": [
            {"name": "own.v1.jsonl", "digest": hashlib.sha256(source.read_bytes()).hexdigest(), "format": "alpaca"}
        ],
        "bad_rows": {},
        "dropped_fields": ["answer"],
    }


def test_fields_stay_when_they_are_named_and_ids_go_when_they_are_not_wanted(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", [{**alpaca(1)[0], "answer": "r", "id": "x", "source": "s"}])
    done = converted(source, tmp_path / "out.jsonl", keep=("answer",), new_ids=True, source="t")
    (row,) = read_rows(tmp_path / "out.jsonl")
    assert (row["id"], row["source"], row["answer"]) == (content_id(row), "s", "r")
    assert done.dropped_fields == ()


PLANTED: list[tuple[str, Any]] = [
    ("not_json", '{"instruction": '),
    ("not_object", [1]),
    ("missing_field", {"instruction": "x", "outptu": "y"}),
    ("wrong_type", {"instruction": "x", "output": 3}),
    ("empty_content", {"instruction": "x", "output": "  "}),
    ("template_token", {"instruction": "x <|assistant|>", "output": "y"}),
    ("control_chars", {"instruction": "x\u0001", "output": "y"}),
    ("not_utf8", '{"instruction": "x", "output": "\\udc00"}'),
    ("overlong", {"instruction": "x" * 200, "output": "y"}),
    ("duplicate_id", {"instruction": "other", "output": "y", "id": "same"}),
]


def test_every_planted_defect_is_told_once_with_its_line_and_nothing_is_written(tmp_path: Path) -> None:
    planted = [row for _, row in PLANTED]
    rows = [{**alpaca(1)[0], "id": "same"}, *alpaca(5)]
    for row in planted:
        rows += [row, *alpaca(3)]
    source = written(tmp_path / "a.jsonl", rows)
    done = converted(source, tmp_path / "out.jsonl", rules=RowRules(max_chars=100))
    assert [(bad.code, bad.line) for bad in done.tally.first] == [
        (code, 7 + 4 * i) for i, (code, _) in enumerate(PLANTED)
    ]
    assert done.tally.counts == Counter(code for code, _ in PLANTED)
    assert (done.tally.n_bad, done.tally.n_rows, done.written) == (10, 46, None)
    assert "10 of 46 rows cannot be used, nothing was written" in done.why
    assert names(tmp_path) == ["a.jsonl"]
    told = f"  {source}:15: missing_field: `outptu`: did you mean `output`?; expected `output` or `response`"
    assert told in done.tally.lines()


def test_a_long_report_shows_twenty_rows_and_counts_the_rest(tmp_path: Path) -> None:
    bad = [{"instruction": "x", "output": ""}] * 25
    done = converted(written(tmp_path / "a.jsonl", [*alpaca(5), *bad]), tmp_path / "out.jsonl")
    lines = done.tally.lines()
    assert (len(lines), lines[0]) == (22, "25 of 30 rows cannot be used: empty_content 25")
    assert lines[-1] == "  … and 5 more rows"


def test_bad_rows_are_left_out_and_kept_beside_up_to_a_limit(tmp_path: Path) -> None:
    rows: list[Any] = [*alpaca(198), '{"instruction": "x", "output": "\\ud800"}', "{"]
    source = written(tmp_path / "a.jsonl", rows)
    done = converted(source, tmp_path / "out.jsonl", skip_bad=True)  # 2 of 200 is 1 %, not more
    assert done.written is not None
    assert (done.written.n_rows, done.rejects) == (198, tmp_path / "rejects.jsonl")
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(each["line"], each["code"]) for each in rejects] == [(199, "not_utf8"), (200, "not_json")]
    assert [each["row"] for each in rejects] == [{"instruction": "x", "output": "\ud800"}, "{"]
    assert read_meta(tmp_path / "out.jsonl")["bad_rows"] == {"not_json": 1, "not_utf8": 1}

    (tmp_path / "b").mkdir()
    source = written(tmp_path / "b" / "a.jsonl", rows[1:])  # 2 of 199
    done = converted(source, tmp_path / "b" / "out.jsonl", skip_bad=True)
    assert (done.written, names(tmp_path / "b")) == (None, ["a.jsonl"])
    assert "1.01 % is more than --max-bad 1 %" in done.why
    done = converted(source, tmp_path / "b" / "out.jsonl", skip_bad=True, max_bad=0.5)
    assert done.written is not None


def test_the_same_input_gives_the_same_bytes_and_equal_rows_may_repeat(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", [*alpaca(50), *alpaca(3)])
    done = [converted(source, tmp_path / name) for name in ("b.jsonl", "c.jsonl")]
    assert [each.tally.n_bad for each in done] == [0, 0]
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()
    assert sum(1 for _ in read_rows(tmp_path / "b.jsonl")) == 53


def test_what_was_let_through_on_purpose_can_be_read_again(tmp_path: Path) -> None:
    talk = [{"role": role, "content": "<|user|>"} for role in ("user", "assistant", "tool", "assistant")]
    source = written(tmp_path / "a.jsonl", [{"messages": talk}])
    rules = RowRules(allow_tools=True, allow_template_text=True, max_chars=2_000_000)
    assert converted(source, tmp_path / "out.jsonl", rules=rules).written is not None
    assert {key: read_meta(tmp_path / "out.jsonl")[key] for key in ("allow", "max_chars")} == {
        "allow": ["tools", "template_text"],
        "max_chars": 2_000_000,
    }
    assert len(list(read_rows(tmp_path / "out.jsonl"))) == 1
    with pytest.raises(DataError, match="template_token"):
        list(read_rows(tmp_path / "out.jsonl", rules=RowRules(allow_tools=True)))


def test_a_lone_surrogate_outside_of_the_messages_is_a_bad_row_too(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", [*alpaca(1), {**alpaca(1)[0], "id": "\ud800"}])
    done = converted(source, tmp_path / "out.jsonl")
    assert [str(bad) for bad in done.tally.first] == [
        f"{source}:2: not_utf8: U+D800 in a field; expected text without lone surrogates"
    ]


def test_equal_neighbours_are_joined_when_asked_for(tmp_path: Path) -> None:
    user, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}
    source = written(tmp_path / "a.jsonl", [{"messages": [user, user, answer, answer]}])
    assert converted(source, tmp_path / "out.jsonl").tally.counts == {"role_order": 1}
    assert converted(source, tmp_path / "out.jsonl", rules=RowRules(merge_turns=True)).written is not None
    (row,) = read_rows(tmp_path / "out.jsonl")
    assert [each["content"] for each in row["messages"]] == ["q\n\nq", "r\n\nr"]


def test_several_files_become_one_and_rows_of_another_kind_are_bad(tmp_path: Path) -> None:
    pairs = [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    sources = [open_source(str(written(tmp_path / "a.jsonl", alpaca(2))))]
    sources.append(open_source(str(written(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "r"}]))))
    done = convert(sources, tmp_path / "out.jsonl", ConvertOptions())
    assert list(done.formats.values()) == ["alpaca", "prompt-completion"]
    assert [row["source"] for row in read_rows(tmp_path / "out.jsonl")] == ["a", "a", "b"]
    sources.append(open_source(str(written(tmp_path / "c.jsonl", pairs))))
    done = convert(sources, tmp_path / "more.jsonl", ConvertOptions())
    assert [(bad.code, bad.line) for bad in done.tally.first] == [("missing_field", 1)]


def test_what_cannot_be_meant_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", alpaca(2))
    for options, words in (
        ({"to": "sharegtp"}, "did you mean 'sharegpt'"),
        ({"format": "alpacas"}, "did you mean 'alpaca'"),
        ({"max_bad": 1.5}, "a fraction"),
    ):
        with pytest.raises(UsageError, match=words):
            converted(source, tmp_path / "out.jsonl", **options)
    for out, rejects in ((source, None), (tmp_path / "out.jsonl", source)):
        with pytest.raises(UsageError, match="is what is read"):
            converted(source, out, rejects=rejects)
    with pytest.raises(DataError, match="no roles; use continued pre-training elsewhere"):
        converted(written(tmp_path / "t.jsonl", [{"text": "x"}]), tmp_path / "out.jsonl", format="text")
    assert "no rows" in converted(written(tmp_path / "e.jsonl", []), tmp_path / "out.jsonl").why
    assert names(tmp_path) == ["a.jsonl", "e.jsonl", "t.jsonl"]


def test_a_data_set_of_the_hub_is_taken_from_a_data_root(tmp_path: Path) -> None:
    write_repo(tmp_path / "root", "own/talks", {"en": {"train": alpaca(3), "test": alpaca(1)}})
    for name, n in (("hub:own/talks", 3), ("hub:own/talks:en:test", 1)):
        source = open_source(name, [tmp_path / "root"], offline=True)
        done = convert([source], tmp_path / f"{n}.jsonl", ConvertOptions())
        assert done.written is not None
        assert (done.written.n_rows, read_meta(tmp_path / f"{n}.jsonl")["origin"]) == (n, "own/talks")
    assert {row["source"] for row in read_rows(tmp_path / "3.jsonl")} == {"own/talks"}
    with pytest.raises(DataError, match=r"no split 'tset'; did you mean 'test'[\s\S]*hub:own/talks:CONFIG:SPLIT"):
        open_source("hub:own/talks:en:tset", [tmp_path / "root"], offline=True)


def test_the_command_writes_tells_and_never_writes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = written(tmp_path / "a.jsonl", alpaca(3)), tmp_path / "out.jsonl"
    typed = ["data", "convert", str(source), "-o", str(out)]
    assert main([*typed, "--licence", "MIT", "--skill", "chat"]) == 0
    assert "out.jsonl: 3 rows from alpaca, sha256" in capsys.readouterr().out
    meta = read_meta(out)
    assert (meta["licence"], meta["skills"]) == ("MIT", ["chat"])
    assert meta["made"]["command"] == "evalsuite data convert a.jsonl -o out.jsonl --from auto --to messages"
    assert str(tmp_path) not in json.dumps(meta)
    assert main(typed) == 2
    assert "is there already; name another file with -o, or add --overwrite" in capsys.readouterr().err
    assert main([*typed, "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["written"]["digest"], told["rows"], told["bad"]) == (meta["digest"], 3, 0)


def test_the_command_exits_with_two_on_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "a.jsonl", [*alpaca(3), {"instruction": "x", "output": ""}])
    typed = ["data", "convert", str(source), "-o", str(tmp_path / "out.jsonl"), "--json"]
    assert main(typed) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["written"] is None
    assert json.loads(told.out)["first"][0]["line"] == 4
    assert f"{source}:4: empty_content" in told.err
    assert main(["data", "convert", str(source), "-o", str(tmp_path / "out.txt")]) == 2
    assert "its name ends in none of .jsonl" in capsys.readouterr().err
    assert main(["data", "convert", str(tmp_path / "b.jsonl"), "-o", "x.jsonl"]) == 2
    assert "did you mean 'a.jsonl'?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def train_data(shared_data: Path) -> Path:
    if not (shared_data / "train").is_dir():
        pytest.skip(f"real training data is absent: no folder {shared_data / 'train'}")
    return shared_data / "train"


def real(train_data: Path, name: str, out: Path, **options: Any) -> tuple[Converted, list[dict[str, Any]]]:
    done = converted(train_data / name, out, **options)
    return done, list(read_rows(out)) if done.written else []


@pytest.mark.parametrize(
    ("name", "form", "n_rows"),
    [
        ("sft/alpaca_en_demo.jsonl", "alpaca", 700),
        ("sft/gpteacher_codegen.jsonl", "alpaca", 3180),
        ("sft/gpteacher_roleplay.jsonl", "alpaca", 1362),
        ("sft/oasst1_en100.jsonl", "messages", 120),
        ("preference/oasst1_en100.jsonl", "oasst-pref", 120),
        ("preference/dpo_en_demo.jsonl", "sharegpt", 217),
        ("contaminated/gsm8k_train_alpaca.jsonl", "alpaca", 7473),
    ],
)
def test_real_files_convert_whole(name: str, form: str, n_rows: int, train_data: Path, tmp_path: Path) -> None:
    done, rows = real(train_data, name, tmp_path / "out.jsonl")
    assert (list(done.formats.values()), len(rows), done.tally.n_bad) == ([form], n_rows, 0)


def test_facts_of_the_real_conversations(train_data: Path, tmp_path: Path) -> None:
    _, oasst = real(train_data, "sft/oasst1_en100.jsonl", tmp_path / "a.jsonl")
    assert Counter(len(row["messages"]) for row in oasst) == {2: 59, 4: 61}
    _, pairs = real(train_data, "preference/dpo_en_demo.jsonl", tmp_path / "b.jsonl")
    assert sum(row["chosen"][0]["role"] == "system" for row in pairs) == 57
    _, demo = real(train_data, "sft/alpaca_en_demo.jsonl", tmp_path / "c.jsonl")
    prompts = Counter(row["messages"][0]["content"] for row in demo)
    assert sum(n - 1 for n in prompts.values()) == 7


def test_the_one_empty_answer_of_code_alpaca_is_found(train_data: Path, tmp_path: Path) -> None:
    done, _ = real(train_data, "sft/code_alpaca_2k.jsonl", tmp_path / "a.jsonl")
    assert (done.tally.n_rows, done.tally.counts, done.written) == (1418, {"empty_content": 1}, None)
    done, rows = real(train_data, "sft/code_alpaca_2k.jsonl", tmp_path / "a.jsonl", skip_bad=True)
    assert len(rows) == 1417


def test_facts_of_the_real_dialogues_of_hh(train_data: Path, tmp_path: Path) -> None:
    done, _ = real(train_data, "preference/hh_rlhf_harmless.jsonl", tmp_path / "a.jsonl")
    # Counted from 0: empty final answers 59 and 647; two equal roles in a row in the chosen text of 6 rows, in the
    # rejected one of one more (1347); of these 874, 1178, 1347 and 1349 have different numbers of turns.
    assert done.tally.n_rows == 1605
    assert done.tally.counts == {"role_order": 7, "diverges_early": 4, "empty_content": 2}
    found = {code: sorted({b.line - 1 for b in done.tally.first if b.code == code}) for code in done.tally.counts}
    assert found == {
        "empty_content": [59, 647],
        "role_order": [468, 536, 874, 1178, 1283, 1347, 1349],
        "diverges_early": [874, 1178, 1347, 1349],
    }
    done, rows = real(
        train_data,
        "preference/hh_rlhf_harmless.jsonl",
        tmp_path / "a.jsonl",
        rules=RowRules(merge_turns=True),
        skip_bad=True,
    )
    assert (len(rows), done.tally.counts) == (1603, {"empty_content": 2})
    assert all(row["chosen"][:-1] == row["rejected"][:-1] for row in rows)  # all diverge at the last turn


@pytest.mark.parametrize("name", ["contaminated/test_HumanEval.jsonl", "preference/llmbar.jsonl"])
def test_real_files_of_no_format_are_refused(name: str, train_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no roles|no format"):
        converted(train_data / name, tmp_path / "a.jsonl")
