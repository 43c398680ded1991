"""The curve of the ladder as one page without scripts: reward, development and unseen score of each RLVR run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train_plugins.ladder.story import Told

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 260, 40, 34, 16
COLOURS = {"reward": "#8a8f98", "dev": "#0b6e4f", "unseen": "#b3541e"}
FAINT = "#a9d3c3"  # each task of the development suite
NAMES = {
    "reward": "reward: pass rate of its rollouts",
    "dev": "development suite, thin: each of its tasks",
    "unseen": "unseen suite",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #1c1f23; }
.runs { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; } text { font-size: 11px; fill: #444; }
table { border-collapse: collapse; } td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child, td:last-child, th:last-child { text-align: left; }
.block { color: #b00020; font-weight: 600; } .promote { color: #0b6e4f; font-weight: 600; }
"""


def write_page(path: Path, told: Sequence[Told], curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Writes the page; text from checkpoints and verdicts is escaped."""
    figures = "".join(_figure(run, curve, told) for run, curve in curves.items() if curve)
    legend = " · ".join(f'<span style="color:{COLOURS[key]}">■</span> {NAMES[key]}' for key in COLOURS)
    head = "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
    body = (
        f"<title>The ladder</title><style>{STYLE}</style><h1>Reward, development, unseen</h1><p>{legend}. Bars are one "
        f"standard error. All answers are drawn at temperature 1.</p>"
        f"<div class='runs'>{figures}</div><h2>Every checkpoint</h2>{_table(told)}"
    )
    path.write_text(head + body + "</html>\n", encoding="utf-8")


def _figure(run: str, curve: Sequence[tuple[int, float]], told: Sequence[Told]) -> str:
    last = max(step for step, _ in curve)
    start = next((each for each in told if each.stage == "dpo"), None)
    own = [(each.step, each) for each in told if each.stage == run]
    points = ([(0, start)] if start is not None else []) + own
    dev = [(step, each.dev, each.stderr) for step, each in points if each.dev is not None]
    unseen = [(step, each.unseen, each.unseen_stderr) for step, each in points if each.unseen is not None]
    parts = [_axes(last), _line([(step, rate) for step, rate in curve], last, COLOURS["reward"], 1.2)]
    for column in (start or own[0][1]).scores or {} if points else ():
        parts.append(_line([(step, (each.scores or {}).get(column, 0.0)) for step, each in points], last, FAINT, 1.2))
    for colour, values in ((COLOURS["dev"], dev), (COLOURS["unseen"], unseen)):
        parts.append(_line([(step, value) for step, value, _ in values], last, colour, 2.4))
        parts += [_bar(step, value, stderr, last, colour) for step, value, stderr in values]
    outcome = own[-1][1].outcome if own else ""
    caption = f"{escape(run)} <span class='{escape(outcome)}'>{escape(outcome)}</span>"
    svg = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' role='img' aria-label='{escape(run)}'>"
    return f"<figure><figcaption>{caption}</figcaption>{svg}{''.join(parts)}</svg></figure>"


def _x(step: float, last: int) -> float:
    return LEFT + (WIDTH - LEFT - 10) * step / max(1, last)


def _y(value: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)


def _axes(last: int) -> str:
    rules = "".join(
        f"<line x1='{LEFT}' x2='{WIDTH - 10}' y1='{_y(v / 4):.1f}' y2='{_y(v / 4):.1f}' stroke='#e3e5e8'/>"
        f"<text x='{LEFT - 6}' y='{_y(v / 4) + 4:.1f}' text-anchor='end'>{25 * v}</text>"
        for v in range(5)
    )
    ends = "".join(
        f"<text x='{_x(step, last):.1f}' y='{HEIGHT - 14}' text-anchor='middle'>{step}</text>"
        for step in (0, last // 2, last)
    )
    return f"{rules}{ends}<text x='{WIDTH / 2}' y='{HEIGHT - 1}' text-anchor='middle'>iterations</text>"


def _line(points: Sequence[tuple[float, float]], last: int, colour: str, width: float) -> str:
    path = " ".join(f"{_x(step, last):.1f},{_y(value):.1f}" for step, value in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width}'/>"


def _bar(step: float, value: float, stderr: float, last: int, colour: str) -> str:
    x, low, high = _x(step, last), _y(value - stderr), _y(value + stderr)
    return (
        f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{low:.1f}' y2='{high:.1f}' stroke='{colour}' stroke-width='1.5'/>"
        f"<circle cx='{x:.1f}' cy='{_y(value):.1f}' r='3' fill='{colour}'/>"
    )


def _table(told: Sequence[Told]) -> str:
    columns = tuple((told[0].scores or {}) if told else ())
    head = "".join(
        f"<th>{escape(name)}</th>" for name in ("checkpoint", *columns, "dev", "unseen", "reward", "verdict")
    )
    rows = "".join(_row(each, columns) for each in told)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _row(each: Told, columns: Sequence[str]) -> str:
    scores = each.scores or {}
    numbers = [_number(scores.get(column), 0.0) for column in columns]
    numbers += [_number(each.dev, each.stderr), _number(each.unseen, each.unseen_stderr), _number(each.reward, 0.0)]
    verdict = f"<td class='{escape(each.outcome)}'>{escape(each.line or each.outcome)}</td>"
    return f"<tr><td>{escape(each.name)}</td>{''.join(f'<td>{n}</td>' for n in numbers)}{verdict}</tr>"


def _number(value: float | None, stderr: float) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ±{100 * stderr:.1f}" if stderr else "")
