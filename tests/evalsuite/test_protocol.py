"""Judge protocols: what is shipped is sound, a broken file is told in full, an official text is known by its hash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.errors import BenchmarkError, UsageError
from evalsuite.protocol import (
    Source,
    known_protocols,
    load_protocol,
    official_templates,
    read_protocol,
    verdicts_of,
)
from evalsuite.verify.judge import Ask, NoVerdict, Verdict
from evalsuite.verify.judge_prompt import fill, sha256

OFFICIAL = "<s>[INST] {prompt} and {response} {not a field} [/INST]"
WITH_OFFICIAL = """
name: mine
family: safety
templates:
  safety: {kind: raw, fields: {prompt: untrusted, response: untrusted}}
answer: {kind: text, max_tokens: 8}
parser: three_lines
positions: fixed
official_only: true
"""


@pytest.mark.parametrize("name", sorted(known_protocols()))
def test_every_shipped_protocol_is_sound_and_its_own_wording_can_be_filled(name: str) -> None:
    protocol = load_protocol(name)
    for template in protocol.templates.values():
        if protocol.official_only:
            assert set(protocol.official_sha256) == set(protocol.templates)
            continue
        filled = fill(template, {field: f"<{field}>" for field in template.fields})
        whole = "\n".join(text for _, text in filled.turns)
        assert all(whole.count(f"<{field}>") == 1 for field in template.fields)
        # What is judged is always untrusted.
        assert all(
            trust == "untrusted" for field, trust in template.fields.items() if field.startswith(("output", "resp"))
        )


def test_a_digest_changes_with_what_is_asked_and_not_with_how_it_is_read() -> None:
    demo = load_protocol("demo")
    assert replace(demo, parser="href_tolerant").digest == demo.digest
    assert replace(demo, answer=replace(demo.answer, max_tokens=17)).digest != demo.digest
    template = replace(demo.templates["compare"], turns=(("user", "other"),))
    assert replace(demo, templates={"compare": template}).digest != demo.digest


def test_an_unknown_protocol_is_named_with_its_near_miss() -> None:
    with pytest.raises(BenchmarkError, match=r"no judge protocol named 'dema'; did you mean 'demo'\?"):
        load_protocol("dema")


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("""
name: yours
familly: x
templates:
  one:
    kind: chat
    user: "{{a}} {{c}}"
    text: raw text
    fields: {a: untrusted, b: untrusted, c: maybe}
  two: {kind: raww, fields: {a: trusted}}
answer: {kind: next_token, options: [m], max_tokens: 0, temprature: 1}
parser: href_oficial
positions: seded
seed: yes
official_sha256: {onee: abc}
official_source: {package: x}
""")
    with pytest.raises(BenchmarkError) as error:
        read_protocol(path)
    said = str(error.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in said)
    for part in (
        "familly: unknown key; did you mean 'family'?",
        "family is missing",
        "name is 'yours'; use the name of the file, 'mine'",
        "positions is 'seded'; did you mean 'seeded'?; use seeded, both or fixed",
        "parser is 'href_oficial'; did you mean 'href_official'?",
        "seed is True; use a whole number",
        "templates.one: text is of the other kind of template",
        "templates.one: fields.c is 'maybe'",
        "templates.one: fields without a place in the text: ['b']; places without a field: []",
        "templates.two: kind is 'raww'; did you mean 'raw'?",
        "answer.temprature: unknown key; did you mean 'temperature'?",
        "answer.max_tokens is 0; use 1 or more",
        "answer.options has 1 entries; a next_token answer needs two",
        "answer.top_logprobs is missing",
        "official_sha256.onee: no such template; did you mean 'one'?",
        "official_sha256.onee is 'abc'; expected 64 hex digits",
        "official_source is {'package': 'x'}; expected package, file",
    ):
        assert any(part in line for line in said), (part, said)


def with_official(tmp_path: Path, source: Source | None = None) -> object:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{WITH_OFFICIAL}official_sha256: {{safety: {sha256(OFFICIAL)}}}\n")
    return replace(read_protocol(path), official_source=source)


def test_an_official_text_is_known_by_its_hash_with_or_without_a_last_newline(tmp_path: Path) -> None:
    protocol = with_official(tmp_path)
    for text in (OFFICIAL, OFFICIAL + "\n"):
        file = tmp_path / "template.txt"
        file.write_text(text)
        template = official_templates(protocol, [file])["safety"]  # type: ignore[arg-type]
        assert (template.source, template.sha256, template.kind) == ("official template", sha256(OFFICIAL), "raw")
        assert fill(template, {"prompt": "P", "response": "R"}).turns[0][1] == "<s>[INST] P and R {not a field} [/INST]"


def test_another_text_is_refused_under_the_protocols_name(tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    file.write_text(OFFICIAL.replace("and", "or"))
    with pytest.raises(UsageError, match=r"template\.txt: sha256 [0-9a-f]{64} is no official template of 'mine'"):
        official_templates(with_official(tmp_path), [file])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="knows no official template"):
        official_templates(load_protocol("demo"), [file])


def test_an_official_text_is_read_from_an_installed_package_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "officialpkg"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "words.py").write_text(f"import torch\nOTHER = 1\nTEXT = {OFFICIAL!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    protocol = with_official(tmp_path, Source("officialpkg", "words.py", "TEXT"))
    assert official_templates(protocol)["safety"].official == sha256(OFFICIAL)  # type: ignore[arg-type]


def test_a_protocol_without_own_words_says_where_to_get_them(tmp_path: Path) -> None:
    protocol = with_official(tmp_path, Source("no_such_package_here", "words.py", "TEXT"))
    with pytest.raises(
        UsageError, match=r"install the package 'no_such_package_here' or give the text with --judge-temp"
    ):
        official_templates(protocol)  # type: ignore[arg-type]


def test_one_of_two_official_texts_is_not_enough(tmp_path: Path) -> None:
    demo = load_protocol("demo")
    two = dict.fromkeys(("one", "two"), demo.templates["compare"])
    text = "{instruction} {output_1} {output_2}"
    file = tmp_path / "one.txt"
    file.write_text(text)
    protocol = replace(demo, templates=two, official_sha256={"one": sha256(text), "two": "0" * 64})
    with pytest.raises(UsageError, match="no official template for two; give all of them or none"):
        official_templates(protocol, [file])


def test_hand_written_texts_are_read_as_the_stage_reads_them() -> None:
    demo = load_protocol("demo")
    asks = [Ask("compare", {}, swapped) for swapped in (False, True, False, False)]
    found = verdicts_of(demo, asks, ["B", "B", "hm", " "])
    assert found[:2] == (Verdict(1.0, mode="official"), Verdict(0.0, mode="official"))
    assert [f.kind for f in found[2:] if isinstance(f, NoVerdict)] == ["unparsed", "empty"]
