"""`evalsuite check`: prompts as a model gets them, and what goes together on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.__main__ import main
from tests.tiny import make_tokenizer


def test_printed_prompts_are_those_of_any_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tokenizer(tmp_path, 600, None)
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}: {{ messages[-1].content }}")
    wanted = ["--tasks", "demo_add", "--print-prompts", "1", "--checkpoint", str(tmp_path)]
    assert main(["check", *wanted]) == 0
    assert "\n26 Jul 2024: " in capsys.readouterr().out


@pytest.mark.parametrize("more", [("--tasks", "gsm8k"), ("--print-prompts", "1")])
def test_judges_are_not_checked_on_benchmarks(more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--judge", "href=hf:nowhere", *more]) == 2
    assert "--judge calibrates judges" in capsys.readouterr().err
