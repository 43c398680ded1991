"""Evals from files, folders, lists and tasks; what cannot be protected; the file that hands evals over."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decontam import reference
from decontam.errors import DecontamError
from decontam.evals import eval_set, from_jsonl, load_evals, to_jsonl, unprotected
from decontam.evals.hub import load_list, read_list
from decontam.evals.protect import own_windows
from decontam.rules import RULES
from tests.hub import write_repo

TULU3 = RULES["tulu3"]
LONG = "How many ships sail from the old harbour to the island each day?"
# Nine tokens, do|n't … ca|n't: both windows have an edge inside a word and so stand nowhere, not even here.
CUT = "don't you see why they all can't"


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_one_eval_named_by_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "ships.jsonl", [{"id": 7, "question": LONG, "prompt": "x"}, {"question": None}])
    (ships,) = load_evals(str(path), kind="unseen")
    assert (ships.name, ships.kind, ships.fields, ships.source) == ("ships", "unseen", ("question",), "ships.jsonl")
    assert (ships.ids, ships.texts) == (("7", "1"), ((LONG,), (None,)))
    (named,) = load_evals(f"fleet={path}", ("prompt", "question"))
    assert (named.name, named.fields, named.texts[0]) == ("fleet", ("prompt", "question"), ("x", LONG))
    assert named.digest != ships.digest


@pytest.mark.parametrize("name", ["a/b", ".hidden", "two\nlines"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(DecontamError, match="cannot name an eval"):
        eval_set(name, [{"text": LONG}])


def test_dotted_fields_reach_into_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", [{"doc": {"q": LONG}, "a.b": "of dots"}, {"doc": "no object"}])
    assert load_evals(str(path), ("doc.q",))[0].texts == ((LONG,), (None,))
    assert load_evals(str(path), ("a.b",))[0].texts == (("of dots",), (None,))


def test_every_format_gives_the_same_eval(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"question": LONG}, {"question": "ünïcode \u2028 and 🙂"}]
    plain = write(tmp_path / "e.jsonl", rows)
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pyarrow.output_stream(str(tmp_path / "e.jsonl.zst"), compression="zstd") as out:
        out.write(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n").rstrip(b"\r\n"))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "e.parquet")
    evals = [load_evals(str(tmp_path / f"e.{end}"))[0] for end in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")]
    assert len({(each.name, each.texts, each.digest) for each in evals}) == 1


def test_a_folder_is_an_eval_for_each_file(tmp_path: Path) -> None:
    write_repo(tmp_path, "me/ships", {"big": {"test": [{"question": LONG}]}, "small": {"test": [{"question": "?"}]}})
    evals = load_evals(str(tmp_path / "me/ships"))
    assert [(each.name, each.source) for each in evals] == [
        ("big-test", "big/test.jsonl"),
        ("small-test", "small/test.jsonl"),
    ]
    assert [each.name for each in load_evals(f"mine={tmp_path / 'me/ships'}")] == ["mine-big-test", "mine-small-test"]


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([], (), "no instances"),
        ([{"question": LONG}], ("qestion",), "no row has a text in field 'qestion'.*did you mean 'question'"),
        ([{"story": LONG, "n": 1}], (), "no text field; it has story, n; name one with --eval-field"),
        ([{"q": "x"}, {"q": 3}, {"q": ["y"]}], ("q",), r"row 1: field 'q' is int(.|\n)*row 2: field 'q' is list"),
        ([{"q": "x"}, [1]], ("q",), ":2: list, expected an object"),
    ],
)
def test_broken_evals_are_refused_with_what_is_wrong(
    tmp_path: Path, rows: list[Any], fields: tuple[str, ...], message: str
) -> None:
    path = write(tmp_path / "e.jsonl", rows)
    with pytest.raises(DecontamError, match=message) as refused:
        load_evals(str(path), fields)
    assert "e.jsonl" in str(refused.value)


def test_broken_files_are_refused_with_their_name(tmp_path: Path) -> None:
    broken = tmp_path / "folder" / "a.jsonl"
    write(broken, [{"question": LONG}])
    broken.write_bytes(broken.read_bytes() + b'{"question": \n\xff\n')
    (tmp_path / "folder" / "b.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "folder" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"question": "x"}\n' * 9)[:-9])
    with pytest.raises(DecontamError) as refused:
        load_evals(str(tmp_path / "folder"))
    told = str(refused.value)
    assert all(what in told for what in ("a.jsonl:2: not JSON", "a.jsonl:3: not JSON", "b.parquet", "c.jsonl.gz"))
    with pytest.raises(DecontamError, match="no evals at 'nowhere'"):
        load_evals("nowhere")
    write(tmp_path / "text" / "e.txt", [])
    with pytest.raises(DecontamError, match="no file of it ends in"):
        load_evals(str(tmp_path / "text"))


def test_equal_names_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name in ("a-b/c.jsonl", "a/b-c.jsonl", "e.jsonl", "e.parquet.jsonl"):
        write(tmp_path / name, [{"question": LONG}])
    with pytest.raises(DecontamError, match="2 evals named 'a-b-c'"):
        load_evals(str(tmp_path))


def test_the_list_of_tulu3_is_the_published_one_and_ours() -> None:
    listed = read_list("tulu3")
    assert Counter(each.kind for each in listed if not each.ours) == {"development": 10, "safety": 5, "unseen": 5}
    assert [(each.name, each.fields) for each in listed if each.ours] == [("popqa_question", ("question",))]
    assert len({each.name for each in listed}) == 21
    assert {each.name: each.fields for each in listed if len(each.fields) > 1} == {
        "drop": ("passage", "question"),
        "popqa": ("subj", "prop", "obj"),
        "agi_eval_en": ("passage", "question"),
    }
    assert {each.name: each.limit for each in listed if each.limit} == {"deepmind_math": 50}
    with pytest.raises(DecontamError, match="no list of evals named 'tulu'; did you mean 'tulu3'"):
        read_list("tulu")


def every_eval_of_tulu3(root: Path) -> None:
    """A stand-in for each data set, of the schema that the list expects."""
    one = [{"question": LONG, "passage": "", "prompt": LONG, "input": LONG, "instruction": LONG, "problem": LONG}]
    rest = {"subj": "a", "prop": "b", "obj": "c", "adversarial": LONG, "Behavior": LONG, "Question": LONG}
    rows = [{**one[0], **rest, "instruct_prompt": LONG}]
    for each in read_list("tulu3"):
        configs = (
            ["algebra", "geometry"] if each.name in ("math", "bbh", "deepmind_math") else [each.config or "default"]
        )
        write_repo(root, each.dataset, {config: {each.split: rows * 60} for config in configs})


def test_a_list_is_read_from_a_data_root(tmp_path: Path) -> None:
    every_eval_of_tulu3(tmp_path)
    evals = {each.name: each for each in load_evals("decontam:tulu3", data_root=tmp_path)}
    assert list(evals) == [each.name for each in read_list("tulu3")]
    assert (evals["gsm8k"].ids[-1], evals["gsm8k"].source) == ("59", "openai/gsm8k main test")
    assert (len(evals["bbh"].ids), evals["bbh"].ids[59:61]) == (120, ("algebra/59", "geometry/0"))
    assert (len(evals["deepmind_math"].ids), evals["deepmind_math"].ids[50]) == (100, "geometry/0")
    assert evals["drop"].texts[0] == ("", LONG)
    assert (evals["popqa"].texts[0], evals["popqa_question"].texts[0]) == (("a", "b", "c"), (LONG,))
    with pytest.raises(DecontamError, match="leave out --eval-field"):
        load_evals("decontam:tulu3", ("question",), data_root=tmp_path)


def test_absent_data_sets_are_all_named_or_skipped_on_demand(tmp_path: Path) -> None:
    with pytest.raises(DecontamError, match="needs --data-root DIR"):
        load_list("tulu3", None)
    with pytest.raises(DecontamError, match=r"lacks cais/mmlu, .*deepmind/math_dataset"):
        load_list("tulu3", tmp_path, skip_missing=True)  # nothing at all is there
    write_repo(tmp_path, "openai/gsm8k", {"main": {"test": [{"question": LONG}]}})
    with pytest.raises(DecontamError, match="--skip-missing"):
        load_list("tulu3", tmp_path)
    assert [each.name for each in load_list("tulu3", tmp_path, skip_missing=True)] == ["gsm8k"]
    write_repo(tmp_path, "google/IFEval", {"default": {"test": [{"prompt": LONG}]}})
    with pytest.raises(DecontamError, match=r"ifeval: .* has no split 'train'; it has default: test"):
        load_list("tulu3", tmp_path, skip_missing=True)


def test_folders_without_a_readme_are_read_as_the_hub_lays_them_out(tmp_path: Path) -> None:
    write(tmp_path / "cais/mmlu/all/test-00000-of-00002.jsonl", [{"question": "first"}])
    write(tmp_path / "cais/mmlu/all/test-00001-of-00002.jsonl", [{"question": "second"}])
    write(tmp_path / "akariasai/PopQA/data/test.jsonl", [{"question": LONG, "subj": "a", "prop": "b", "obj": "c"}])
    evals = {each.name: each for each in load_list("tulu3", tmp_path, skip_missing=True)}
    assert evals["mmlu"].texts == (("first",), ("second",))
    assert set(evals) == {"mmlu", "popqa", "popqa_question"}


def task_file(folder: Path, **more: str) -> Path:
    data = write(folder / "ships.jsonl", [{"question": LONG, "story": "A story.", "answer": 3}] * 2)
    fields = {
        "task": "ships",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        **more,
    }
    path = folder / "ships.yaml"
    path.write_text(json.dumps(fields))
    return path


def test_an_lm_eval_task_gives_its_documents(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (ships,) = load_evals(f"lm-eval:{task_file(tmp_path)}", kind="unseen")
    assert (ships.name, ships.kind, ships.fields, ships.ids) == ("ships", "unseen", ("question",), ("0", "1"))
    path = task_file(tmp_path, doc_to_decontamination_query="story")
    assert load_evals(f"lm-eval:{path}")[0].texts == (("A story.",),) * 2
    assert load_evals(f"lm-eval:{path}", ("question", "story"))[0].texts[0] == (LONG, "A story.")


def test_an_unknown_or_unreadable_task_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pytest.importorskip("lm_eval.tasks")
    path = task_file(tmp_path)
    # Reading all tasks of lm-eval takes seconds; these are as good.
    manager = tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "TaskManager", lambda include_defaults: manager)
        assert [each.name for each in load_evals("lm-eval:ships")] == ["ships"]
        with pytest.raises(DecontamError, match="no task named 'shipss'; did you mean 'ships'"):
            load_evals("lm-eval:shipss")
    with pytest.raises(DecontamError, match="no such file"):
        load_evals(f"lm-eval:{tmp_path / 'none.yaml'}")
    (tmp_path / "ships.jsonl").unlink()
    with pytest.raises(DecontamError, match="cannot be loaded"):
        load_evals(f"lm-eval:{path}")


def test_evals_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    evals = [
        eval_set(
            "a", [{"id": "x", "p": "\ud800 é\u2028\n", "q": None}, {"p": "", "q": "y"}], ("p", "q"), kind="safety"
        ),
        eval_set("b", [{"text": LONG}] * 3, source="somewhere"),
    ]
    path = tmp_path / "evals.jsonl"
    text = to_jsonl(evals, path)
    assert path.read_text() == text == to_jsonl(evals)
    assert from_jsonl(path) == evals
    assert [each.name for each in tmp_path.iterdir()] == ["evals.jsonl"]


@pytest.mark.parametrize("spoil", [lambda t: t[: t.rindex('{"id"')], lambda t: t[:-20], lambda t: '{"row": 1}\n' + t])
def test_a_file_of_evals_that_was_cut_short_is_refused(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "evals.jsonl"
    path.write_text(spoil(to_jsonl([eval_set("b", [{"text": LONG}] * 3)])))
    with pytest.raises(DecontamError, match="no file of evals, or was cut short"):
        from_jsonl(path)
    with pytest.raises(DecontamError, match="No such file"):
        from_jsonl(tmp_path / "none.jsonl")


def test_what_cannot_be_protected_is_listed_with_its_reason() -> None:
    rows = [
        {"id": "long", "p": LONG, "q": LONG},
        {"id": "short", "p": "Is it so?", "q": ""},
        {"id": "empty", "p": LONG, "q": ""},
        {"id": "blank", "p": "", "q": ""},
        {"id": "half", "p": LONG, "q": "Is it so?"},
        {"id": "skipped", "p": LONG, "q": None},
        {"id": "cut", "p": LONG, "q": CUT},
    ]
    evals = [eval_set("e", rows, ("p", "q"))]
    found = unprotected(evals, TULU3)
    assert found["e"] == (
        ("short", "short"),
        ("empty", "empty field"),
        ("blank", "empty field"),
        ("half", "own score"),  # (1 + 0) / 2 is not over one half
        ("cut", "own score"),
    )
    dropped = unprotected(evals, TULU3, drop_empty_fields=True)
    assert [one.id for one in dropped["e"]] == ["short", "blank", "half", "cut"]


def test_a_verbatim_copy_need_not_be_flagged() -> None:
    (each,) = reference.instances_of(TULU3, [(CUT,)])
    assert each is not None
    assert each[0] is not None
    assert (each[0].n, len(each[0].windows)) == (9, 2)
    assert reference.matches(TULU3, [each], CUT) == {}
    assert unprotected([eval_set("e", [{"text": CUT}])], TULU3)["e"] == (("0", "own score"),)


@pytest.mark.parametrize("rule", list(RULES.values()), ids=lambda rule: rule.name)
def test_own_windows_are_those_that_the_reference_finds(rule: Any) -> None:
    texts = ["a b a b a b a b a b", "it's (a) state-of-the-art test, don't panic: it's (a) test", LONG, "", "short"]
    for instance, text in zip(reference.instances_of(rule, [(t,) for t in texts]), texts, strict=True):
        assert instance is not None
        words = reference.words_of(rule.analyzer, text)
        assert own_windows(rule, instance, (text,)) == (reference._standing(instance[0], words),)


# Source: measured with spaCy 3.8.18; `decontam:tulu3` fields, and `text` for MBPP.
@pytest.mark.parametrize(
    ("path", "field", "n", "mean_tokens", "short", "flagged", "whole"),
    [
        ("openai/gsm8k/main/test.jsonl", "question", 1319, 53.6, 0.0, 100.0, 97.3),
        ("openai/openai_humaneval/openai_humaneval/test.jsonl", "prompt", 164, 115.6, 0.0, 100.0, 87.2),
        ("truthfulqa/truthful_qa/generation/validation.jsonl", "question", 817, 12.4, 15.3, 84.7, 81.8),
        ("google-research-datasets/mbpp/full/test.parquet", "text", 500, 15.7, 0.0, 100.0, 99.6),
        ("akariasai/PopQA/default/test.jsonl", "question", None, 7.7, 49.7, 50.3, 50.3),
    ],
)
def test_what_the_rule_protects_of_real_evals(
    hub_data: Path,
    path: str,
    field: str,
    n: int | None,
    mean_tokens: float,
    short: float,
    flagged: float,
    whole: float,
) -> None:
    (each,) = load_evals(f"it={_existing(hub_data / path)}", (field,))
    instances = [one for one in reference.instances_of(TULU3, each.texts) if one is not None]
    own = [own_windows(TULU3, one, texts) for one, texts in zip(instances, each.texts, strict=True)]
    scores = [reference.coverage(one, stands).score for one, stands in zip(instances, own, strict=True)]
    sizes = [one[0].n for one in instances if one[0]]

    def percent(count: int) -> float:
        return round(100 * count / len(instances), 1)

    assert n is None or len(instances) == n
    assert round(sum(sizes) / len(sizes), 1) == mean_tokens
    assert percent(sum(size < 8 for size in sizes)) == short
    assert percent(sum(score > TULU3.threshold for score in scores)) == flagged
    assert percent(sum(score == 1 for score in scores)) == whole
    listed = unprotected([each], TULU3)["it"]
    assert percent(len(listed)) == round(100 - flagged, 1)
    assert {one.reason for one in listed} <= {"short", "own score"}


def test_the_official_fields_of_popqa_protect_nothing(hub_data: Path) -> None:
    evals = load_evals("decontam:tulu3", data_root=hub_data, skip_missing=True)
    popqa = [each for each in evals if each.name == "popqa"]
    (listed,) = unprotected(popqa, TULU3).values()
    assert len(listed) == len(popqa[0].ids)


def _existing(path: Path) -> Path:
    """The file under that name or in the other format."""
    other = path.with_suffix(".parquet" if path.suffix == ".jsonl" else ".jsonl")
    return path if path.is_file() else other
