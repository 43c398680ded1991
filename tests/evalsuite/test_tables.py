"""One table through every writer: what is shown, how it is aligned, and that hostile names stay text."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import UsageError
from evalsuite.tables import FORMATS, Cell, Column, Format, Row, Table, print_table, score_text, table_format, write
from evalsuite.tables.cells import decimals
from evalsuite.tables.terminal import display_width

ALL: tuple[Format, ...] = FORMATS  # type: ignore[assignment]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b",
    "**bold** _it_ `code` [x](http://evil) ![i](x)",
    "\\input{/etc/passwd} $x^2$ %comment & # ~ _ {}",
    "\\\\[1em] \\end{tabular}",
    "\x1b[31mred\x1b[0m \x07 \x9b2J",
    "line\nbreak\r\n| --- |",
    "\u202egnp.exe \u200b \ud800",
    "=HYPERLINK(1)",
    "[red]rich markup[/red]",
    "&lt;b&gt; https://evil.example www.evil.example",
)


def table(name: str = "step-100", *, rows: int = 1) -> Table:
    columns = (
        Column("checkpoint", "checkpoint", align="left", sticky=True),
        Column("gsm8k", "gsm8k", ("n 1319", "exact_match"), scale=100),
        Column("mmlu", "mmlu", ("n 14042",), scale=100),
        Column("digest", "digest", align="left", detail=True),
    )
    cells = (
        Cell(name, value=name, title=name),
        Cell("62.1", "±1.3", 0.62105, 0.0133, 1319, True, "~a", "n 1319"),
        Cell(),
        Cell("abc", value="abc"),
    )
    reported = (
        Cell("published", value="published", marks="ᴿ"),
        Cell("60.4", value=0.604),
        Cell("9.0", value=0.09),
        Cell(),
    )
    body = [Row(cells)] * rows + [Row(reported, "reported")]
    return Table("demo · v1", columns, tuple(body), ("Scores ×100.",), (("~", "partial"), ("a", "5 % failed")), "best")


def test_plain_text_is_aligned_and_a_star_marks_the_best() -> None:
    assert write(table(), "terminal").splitlines() == [
        "demo · v1",
        "",
        "checkpoint          gsm8k     mmlu",
        "                   n 1319  n 14042",
        "              exact_match",
        "───────────  ────────────  ───────",
        "step-100     62.1 ±1.3*~a        –",
        "───────────  ────────────  ───────",
        "published ᴿ  60.4              9.0",
        "",
        "Scores ×100.",
        "*: best",
        "~: partial",
        "a: 5 % failed",
    ]


def test_markdown_is_a_table_with_notes_below() -> None:
    assert write(table(), "md").splitlines()[2:6] == [
        r"| checkpoint | gsm8k<br>n 1319<br>exact\_match | mmlu<br>n 14042 |",
        "| --- | ---: | ---: |",
        r"| step-100 | **62.1** ±1.3 \~a | – |",
        "| *published* ᴿ | *60.4* | *9.0* |",
    ]


def test_csv_has_numbers_times_hundred_with_error_n_and_marks() -> None:
    rows = list(csv.DictReader(io.StringIO(write(table(), "csv"))))
    assert rows[0] == {
        "checkpoint": "step-100",
        "checkpoint marks": "",
        "gsm8k": "62.105",
        "gsm8k stderr": "1.33",
        "gsm8k n": "1319",
        "gsm8k marks": "*~a",
        "mmlu": "",
        "digest": "abc",
        "kind": "measured",
    }
    assert (rows[1]["gsm8k"], rows[1]["gsm8k stderr"], rows[1]["kind"]) == ("60.4", "", "reported")


def test_json_keeps_numbers_from_zero_to_one_and_every_column() -> None:
    document = json.loads(write(table(), "json"))
    cells = document["rows"][0]["cells"]
    assert cells["gsm8k"] == {
        "value": 0.62105,
        "text": "62.1 ±1.3",
        "stderr": 0.0133,
        "n": 1319,
        "best": True,
        "marks": "~a",
    }
    assert cells["digest"]["value"] == "abc"
    assert document["rows"][1]["kind"] == "reported"


def test_latex_has_booktabs_rules_and_bold_best() -> None:
    text = write(table(), "latex")
    row = r"step-100 & \textbf{62.1} {\scriptsize $\pm$1.3}\textsuperscript{\textasciitilde{}a} & -- \\"
    assert row in text.splitlines()
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"\begin{tabular}{lrr}" in text


@pytest.mark.parametrize("form", ALL)
def test_the_same_table_gives_the_same_text_and_ends_in_a_newline(form: Format) -> None:
    assert write(table(), form) == write(table(), form)
    assert write(table(), form).endswith("\n")
    assert not write(table(), form).endswith("\n\n")


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_line_of_visible_characters_in_every_format(name: str, form: Format) -> None:
    harmless, hostile = write(table("name"), form), write(table(name), form)
    hostile.encode("utf-8")
    assert not [c for c in hostile if c != "\n" and not c.isprintable()]
    assert hostile.count("\n") == harmless.count("\n")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_adds_no_tag_or_attribute_to_the_page(name: str) -> None:
    harmless, hostile = _Page(), _Page()
    harmless.feed(write(table("name"), "html"))
    hostile.feed(write(table(name), "html"))
    assert hostile.tags == harmless.tags
    assert not [attribute for _, names in hostile.tags for attribute in names if attribute.startswith("on")]
    assert shown(name) in hostile.text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_reads_the_same_in_rendered_markdown(name: str) -> None:
    from markdown_it import MarkdownIt

    page = _Page()
    page.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(write(table(name), "md")))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("tr") == 3
    assert tags.count("td") == 6
    assert not {"a", "img", "script", "code", "s"} & set(tags)
    assert shown(name) in page.text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_adds_no_command_to_latex(name: str) -> None:
    def structure(text: str) -> list[str]:
        # What draws a character counts as text: \textbar{}, \_, {[}, {\char34}, $\pm$.
        words = r"\\text(backslash|asciitilde|asciicircum|less|greater|bar|asciigrave)\{\}"
        drawn = words + r"|\\[{}&%$#_]|\{[][]\}|\{\\char34\}"
        return re.findall(r"\\[a-zA-Z]+|\\\\|[{}$&%#_^~\\]", re.sub(drawn, "", text))

    assert structure(write(table(name), "latex")) == structure(write(table("name"), "latex"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_sends_only_styles_to_a_terminal(name: str) -> None:
    text = write(table(name), "terminal", width=100)
    assert "\x1b[" in text
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert shown(name)[:10] in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_name_that_looks_like_a_formula_is_text_to_a_spreadsheet() -> None:
    for name in ("=1+1", "+1", "-1", "@SUM(A1)"):
        rows = list(csv.reader(io.StringIO(write(table(name), "csv"))))
        assert rows[1][0] == f"'{name}"


def test_csv_reads_back_any_name_with_commas_and_quotes() -> None:
    rows = list(csv.reader(io.StringIO(write(table('a,"b",c'), "csv"))))
    assert rows[1][0] == 'a,"b",c'


@pytest.mark.parametrize("width", [40, 80, 300])
def test_a_terminal_gets_no_line_wider_than_it_is(width: int) -> None:
    columns = [Column("checkpoint", "checkpoint", align="left", sticky=True)]
    columns += [Column(f"b{i}", f"benchmark{i}", ("n 1319", "prompt_level_loose_acc"), scale=100) for i in range(12)]
    cells = (Cell("a-long-name-" * 8 + "end"), *(Cell("62.1", "±1.3", 0.621, best=True) for _ in range(12)))
    wide = Table("title " * 40, tuple(columns), (Row(cells),), ("caption " * 40,), best="best")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", write(wide, "terminal", width=width)).splitlines()
    assert max(display_width(line) for line in lines) <= width
    text = "\n".join(lines)
    assert [text.count(f"benchmark{i}") for i in (0, 2, 11)] == [1, 1, 1]
    # The name leads every block, cut in the middle: what differs between checkpoints of a run is at the end.
    blocks = sum(line.startswith("checkpoint ") for line in lines)
    assert sum("end" in line and line.startswith("a-long") for line in lines) == blocks >= 1
    assert (blocks == 1) == (width == 300)


def test_piped_text_is_never_cut() -> None:
    name = "a-long-name-" * 30
    assert name in write(table(name), "terminal")


def test_bold_reaches_the_terminal_as_bold_and_not_as_a_star() -> None:
    text = write(table(), "terminal", width=80)
    assert "\x1b[1m62.1\x1b[0m" in text
    assert "*" not in text


def test_wide_and_combining_characters_keep_the_columns_aligned() -> None:
    lines = write(table("模型-é"), "terminal").splitlines()
    assert display_width("模型-é") == 6
    assert display_width(lines[6].split("62.1")[0]) == display_width(lines[8].split("60.4")[0])


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_name_at_all_breaks_a_writer(name: str) -> None:
    for form in ALL:
        write(table(name), form)
    write(table(name), "terminal", width=60)


@pytest.mark.parametrize(
    ("value", "text"), [(0.6214, "62.1"), (-0.021, "−2.1"), (-0.0001, "0.0"), (0.0, "0.0"), (1.0, "100.0"), (None, "–")]
)
def test_scores_are_printed_times_hundred(value: float | None, text: str) -> None:
    assert score_text(value) == text


@pytest.mark.parametrize(
    ("points", "digits"),
    [(None, 1), (0.0, 1), (12.0, 0), (1.0, 0), (0.99, 1), (0.1, 1), (0.09, 2), (0.001, 2)],
)
def test_a_score_has_the_digits_that_its_error_leaves(points: float | None, digits: int) -> None:
    # max(0, min(2, −⌊log10 SE⌋)): −⌊log10 .99⌋ = 1, −⌊log10 .09⌋ = 2
    assert decimals(points / 100 if points is not None else None) == digits


def test_points_stand_below_each_other_where_digits_differ() -> None:
    cells = [Cell("62", "±1"), Cell("84.5", "±0.4"), Cell("100.0", "±0.0"), Cell()]
    made = Table("t", (Column("a", "a"),), tuple(Row((c,)) for c in cells))
    assert write(made, "terminal").splitlines()[4:] == [" 62   ±1", " 84.5 ±0.4", "100.0 ±0.0", "    –"]


def test_a_row_of_another_length_is_a_bug_that_shows() -> None:
    with pytest.raises(ValueError, match="1 cells in a table of 2 columns"):
        Table("t", (Column("a", "a"), Column("b", "b")), (Row((Cell(),)),))


def test_the_page_fetches_and_runs_nothing() -> None:
    text = write(table(), "html")
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", text)
    assert "default-src &#x27;none&#x27;" in text
    assert "prefers-color-scheme: dark" in text
    assert 'title="n 1319"' in text


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [
        (None, None, "terminal"),
        (None, "x.tex", "latex"),
        (None, "x.HTML", "html"),
        ("md", "x.csv", "md"),
        (None, "x", "terminal"),
    ],
)
def test_the_ending_of_the_file_says_the_format_unless_told(name: str | None, out: str | None, expected: str) -> None:
    assert table_format(name, Path(out) if out else None) == expected


def test_a_file_is_replaced_whole_and_a_bad_place_is_said(tmp_path: Path) -> None:
    out = tmp_path / "new" / "table.md"
    print_table(table("first"), "md", out)
    print_table(table("second"), "md", out)
    assert out.read_text(encoding="utf-8") == write(table("second"), "md")
    assert os.listdir(out.parent) == ["table.md"]
    with pytest.raises(UsageError, match="cannot be written"):
        print_table(table(), "md", out / "below-a-file.md")


def test_an_ascii_stdout_gets_question_marks_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_table(table())
    assert b"62.1 ?1.3*~a" in raw.getvalue()


def shown(name: str) -> str:
    """The name with unseen characters spelled out, as `visible` promises, restated without it."""
    return (
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
        .replace("\\n", "\\x0a")
        .replace("\\r", "\\x0d")
    )
