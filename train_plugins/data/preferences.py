"""Preference pairs from prompts: a pool of models answers, a judge rates, the best and a worse answer become a pair.

After open-instruct's scripts/synth_pref (commit e6c3044) and UltraFeedback, without what is wrong with them: see
`responses`, `ratings` and `pairs`. Everything that was asked stands in a journal, so the same command goes on after a
crash; what comes out depends on the file, the seed and the answers alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError, Incomplete
from evalsuite.progress import Observer
from train_plugins.data.asking import Engine, open_engine
from train_plugins.data.composition import Composition, compose
from train_plugins.data.kinds import RowRules
from train_plugins.data.pairs import Dropped, PairRules, choose_pair, pair_row
from train_plugins.data.pref_config import PreferenceConfig, PreferenceFile
from train_plugins.data.pref_facts import facts_of, judge_id, prompt_digest
from train_plugins.data.ratings import Grading, Item, Rated, rate
from train_plugins.data.relevance import Relevance, measure, require_aligned, texts_of
from train_plugins.data.responses import Gathered, PromptRow, distinct, gather, read_prompts
from train_plugins.data.rows import check_row, content_id
from train_plugins.data.spending import Open, Purse
from train_plugins.data.writing import DatasetWriter, Written

REQUEST_FAILED = ("request_failed", "judge_failed")  # lost to a server, not to what was written


@dataclass(frozen=True, slots=True)
class Lost:
    """A prompt that gave no pair."""

    id: str
    dropped: Dropped


@dataclass(frozen=True, slots=True)
class Made:
    """What was written, what it is made of, and what was lost. `relevance` is of chosen and of rejected answers."""

    written: Written
    composition: Composition
    relevance: Mapping[str, Relevance]
    lost: tuple[Lost, ...]
    report: Mapping[str, Any]


def make_preferences(
    file: PreferenceFile, out: Path, *, observer: Observer | None = None, command: str = "", opening: Open = open_engine
) -> Made:
    """Answers, ratings, pairs; writes `out`, its sidecar, and `<out>.dropped.jsonl`; the journal is `<out>.journal/`.

    Raises Incomplete when a limit would be crossed or too many requests failed, DataError when the answers turn out to
    be shifted against their prompts; then there is no output, and nothing that was paid for is lost.
    """
    config, journal = file.config, out.with_name(f"{out.name}.journal")
    prompts, n_repeated = load_prompts(file)
    purse = Purse(opening, file.folder, config.max_cost_usd, config.max_tokens_total)
    answers, ratings = journal / "answers", journal / "judge"
    # All are looked at before anything is spent; none is loaded before it is asked.
    engines = {model.name: purse.know(model, answers / model.name) for model in config.models}
    judge = purse.know(config.judge, ratings)
    with DatasetWriter(out) as writer:
        with _says_whose_limit(config):
            gathered = gather(config, prompts, lambda m: purse.engine(m, answers / m.name), answers, observer)
            with purse.engine(config.judge, ratings) as asked:
                rated = rate(list(_items(config, gathered)), grading_of(file, asked, ratings, observer))
        rows, lost = _pairs(config, prompts, gathered, rated, judge_id(file, judge.digest))
        _require_answers(config, lost, len(prompts))
        relevance = {side: _relevance(rows, side, config, str(out)) for side in ("chosen", "rejected")}
        composition = compose(rows, config.on_policy)
        report = {
            "prompts": len(prompts),
            "repeated_prompts": n_repeated,
            **composition.as_json(),
            "dropped": _counted(each.dropped.code for each in lost),
            "no_answer": _no_answer(gathered.values()),
            "ratings_missing": _counted(kind for each in rated.values() for kind in each.missing().elements()),
            "prompts_asked_again": sum(each.asked_again for each in rated.values()),
            "relevance": {side: found.as_json() for side, found in relevance.items()},
            "cost_usd": purse.cost_usd(),
        }
        for row in rows:
            writer.add(row)
        written = writer.finish({**facts_of(file, engines, judge, command), "report": report})
    _write_lost(out.with_name(f"{out.name}.dropped.jsonl"), lost)
    return Made(written, composition, relevance, tuple(lost), report)


@contextmanager
def _says_whose_limit(config: PreferenceConfig) -> Iterator[None]:
    """An engine that stops at its limit does not know that it is what others have left of the file's."""
    try:
        yield
    except Incomplete as error:
        if config.max_cost_usd is None and config.max_tokens_total is None:
            raise
        limits = {"max_cost_usd": config.max_cost_usd, "max_tokens_total": config.max_tokens_total}
        said = ", ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)
        raise Incomplete(f"{error} (the file's {said}, less what other models have used)") from error


def load_prompts(file: PreferenceFile) -> tuple[list[PromptRow], int]:
    """(the prompts of all files, up to `limit`; how many were there twice)."""
    rules = RowRules(allow_template_text=file.config.allow_template_text)
    found = [row for name in file.config.prompts for row in read_prompts(file.folder / name, rules)]
    prompts, n_repeated = distinct(found)
    return prompts[: file.config.limit], n_repeated


def grading_of(file: PreferenceFile, engine: Engine, journal: Path, observer: Observer | None = None) -> Grading:
    judge = file.config.judge
    return Grading(engine, file.aspects, judge.asked_with, judge.least, file.config.seed, journal, observer)


def _items(config: PreferenceConfig, gathered: Mapping[str, Gathered]) -> Iterator[Item]:
    """What the judge sees: prompts with enough answers."""
    for id, each in gathered.items():
        if _has_enough(config, each):
            yield Item(id, each.prompt.messages, each.texts)


def _has_enough(config: PreferenceConfig, gathered: Gathered) -> bool:
    return len(gathered.texts) >= config.responses.least


def _pairs(
    config: PreferenceConfig,
    prompts: Sequence[PromptRow],
    gathered: Mapping[str, Gathered],
    rated: Mapping[str, Rated],
    judge: str,
) -> tuple[list[dict[str, Any]], list[Lost]]:
    """(rows, prompts without one), both in the order of the prompts; everything is found by id."""
    rules = PairRules(config.seed, config.judge.least, config.ties, config.min_margin)
    allowed = RowRules(allow_template_text=config.allow_template_text)
    rows, lost = [], []
    for prompt in prompts:
        if prompt.id not in rated:
            lost.append(Lost(prompt.id, _too_few(config, gathered[prompt.id])))
            continue
        pair = choose_pair(rated[prompt.id], rules)
        if isinstance(pair, Dropped):
            lost.append(Lost(prompt.id, pair))
            continue
        row = pair_row(rated[prompt.id], pair)
        if problems := check_row(row, "preference", allowed):
            code, found, expected = problems[0]
            lost.append(Lost(prompt.id, Dropped(code, f"{found}; expected {expected}")))
            continue
        more = {"prompt_id": prompt.id, "prompt_digest": prompt_digest(prompt), "judge": judge}
        rows.append({"id": content_id(row), "source": prompt.source, **row, **more})
    return rows, lost


def _too_few(config: PreferenceConfig, gathered: Gathered) -> Dropped:
    why = "; ".join(f"{name}: {what or reason}" for name, (reason, what) in sorted(gathered.failed.items()))
    short = f"{len(gathered.texts)} of {config.responses.least} answers ({why})"
    only_requests = all(reason == "request_failed" for reason, _ in gathered.failed.values())
    return Dropped("request_failed" if only_requests else "few_answers", short)


def _require_answers(config: PreferenceConfig, lost: Sequence[Lost], n_prompts: int) -> None:
    """Raises Incomplete when servers lost too many prompts, DataError when there is no pair at all."""
    failed = [each for each in lost if each.dropped.code in REQUEST_FAILED]
    if len(failed) > config.max_failed * n_prompts:
        raise Incomplete(
            f"requests failed for {len(failed)} of {n_prompts} prompts, more than max_failed allows "
            f"({config.max_failed:.0%}), such as {failed[0].id}: {failed[0].dropped.why}; nothing was written, the "
            "same command asks again for what failed"
        )
    if len(lost) == n_prompts:
        reasons = ", ".join(f"{code} {n}" for code, n in _counted(each.dropped.code for each in lost).items())
        raise DataError(
            f"no pair came out of {n_prompts} prompts ({reasons}), such as {lost[0].id}: {lost[0].dropped.why}"
        )


def _relevance(rows: Sequence[Mapping[str, Any]], side: str, config: PreferenceConfig, where: str) -> Relevance:
    pairs = (pair for row in rows for pair in texts_of(row[side]))
    found = measure(pairs, min_relevance=config.min_relevance)
    require_aligned(found, f"{where}, {side}")
    return found


def _no_answer(gathered: Iterable[Gathered]) -> dict[str, dict[str, int]]:
    """Model to reason to how often it gave no usable answer."""
    found: dict[str, list[str]] = {}
    for each in gathered:
        for model, (reason, _) in each.failed.items():
            found.setdefault(model, []).append(reason)
    return {model: _counted(reasons) for model, reasons in sorted(found.items())}


def _counted(words: Iterable[str]) -> dict[str, int]:
    """How often each is there, the most frequent first."""
    return dict(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))


def _write_lost(path: Path, lost: Sequence[Lost]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for each in lost:
            line = {"id": each.id, "reason": each.dropped.code, "why": each.dropped.why}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
