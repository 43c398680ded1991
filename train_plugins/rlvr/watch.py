"""What goes wrong while rewards rise: drift of length, format and repetition, collapse, steps that were not finite.

A warning is said once; what stops a run names the number, the limit and the last good checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalsuite.errors import TrainerFailed
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.rewarding import failures_told
from train_plugins.rlvr.rollouts import Reward, Rollout

if TYPE_CHECKING:
    from train_plugins.worker import Run

WINDOW = 5  # iterations that are averaged
FLAT = 1e-3
SKIPS = 3  # updates in a row that may be thrown away
LENGTH, REPEATED, UNLIKE, UNFINISHED = 1.5, 0.2, 0.3, 0.2  # drifts that are told
GRAM = 4
ADVICE = "a lower lr or a higher beta"
STYLE = ("length", "length_p95", "finished", "repeated", "distinct")


class Watch:
    """Compares an iteration with the first ones of the run. What it remembers is plain data, so that a state keeps it
    (`memory`)."""

    def __init__(self, run: Run, memory: Mapping[str, Any] | None = None) -> None:
        self.run, self.options = run, run.options
        self.memory: dict[str, Any] = dict(memory or {})

    def look(self, metrics: Mapping[str, Any], skips: Sequence[bool]) -> None:
        """Warns, or raises TrainerFailed where the run has to stop. `metrics` hold what `style` says; `skips` tells
        of each update whether it was thrown away."""
        self._drift({name: float(metrics[name]) for name in STYLE}, float(metrics["score"]))
        if metrics.get("advantage_std", 1.0) < FLAT:
            self._warn("flat_rewards", "advantages of an iteration hardly differ; what is left of them is noise")
        self._count_skips(skips)
        self._stop(metrics)

    def verifiers(self, rewards: Sequence[Reward]) -> None:
        """Warns of the first responses that a verifier failed on, fewer than end the run."""
        if told := failures_told(rewards):
            text = f"what a verifier failed on is worth 0: {told}; see verifier_errors of the steps"
            self._warn("verifier_errors", text)

    def gap(self, mean: float, correlation: float, staleness: int = 0) -> None:
        """Warns, or raises TrainerFailed, where the generator does not say what the learner says. Part of what lies
        between them is what the learner learnt meanwhile, where rollouts are older than its weights."""
        limits = self.options.gap_limits
        told = f"mean |Δ log π| {mean:.3g}, correlation {correlation:.4f}"
        told += ", rollouts one iteration old" if staleness else ""
        # Log-probabilities that are all near 0 correlate as rounding does.
        correlation = correlation if mean > limits.warn_mean / 10 else 1.0
        if mean > limits.stop_mean or correlation < limits.stop_correlation:
            self._raise(
                f"generator and learner disagree ({told}; limits {limits.stop_mean}, {limits.stop_correlation})",
                "a lower lr, mode: sync or wider gap_limits" if staleness else ADVICE,
            )
        if mean > limits.warn_mean or correlation < limits.warn_correlation:
            self._warn("gap", "generator and learner begin to disagree: see gap_mean and gap_correlation of the steps")

    def _warn(self, code: str, text: str) -> None:
        """Once in a run, whatever numbers the text has."""
        told = self.memory.setdefault("told", [])
        if code not in told:
            told.append(code)
            self.run.warn(code, text)

    def _drift(self, facts: Mapping[str, float], score: float) -> None:
        """Reward that rises while the way of answering changes: what reward hacking looks like from outside."""
        first = self.memory.setdefault("first", {})
        n = self.memory["n"] = self.memory.get("n", 0) + 1
        for name, value in {**facts, "score": score}.items():
            if n <= WINDOW:
                first[name] = first.get(name, 0.0) + (value - first.get(name, 0.0)) / n
            recent = self.memory.setdefault("recent", {}).setdefault(name, [])
            recent.append(value)
            del recent[:-WINDOW]
        if n <= WINDOW:
            return
        now = {name: sum(values) / len(values) for name, values in self.memory["recent"].items()}
        if now["score"] <= first["score"]:
            return
        for code, text in drifts(first, now):
            self._warn(code, f"{text} while the score rose from {first['score']:.2f} to {now['score']:.2f}: look at "
                       "rollouts.jsonl for what is rewarded")  # fmt: skip

    def _count_skips(self, skips: Sequence[bool]) -> None:
        for skipped in skips:
            self.memory["skipped"] = in_a_row = self.memory.get("skipped", 0) + 1 if skipped else 0
            if in_a_row >= SKIPS:
                self._raise(f"{in_a_row} updates in a row had a loss or gradient that is not finite")

    def _stop(self, metrics: Mapping[str, Any]) -> None:
        options: RLVROptions = self.options
        if options.kl_stop is not None and metrics.get("kl", 0.0) > options.kl_stop:
            self._raise(f"KL is {metrics['kl']:.3g} per response (kl_stop {options.kl_stop})")
        if options.entropy_stop is not None and metrics["entropy"] < options.entropy_stop:
            self._raise(f"entropy is {metrics['entropy']:.3g} per token (entropy_stop {options.entropy_stop})")
        recent = self.memory.get("recent", {}).get("score", [])
        if len(recent) < WINDOW:
            return
        mean = sum(recent) / WINDOW
        best = self.memory["best"] = max(self.memory.get("best", mean), mean)
        # A share of a best score below 0 would be above it.
        if options.score_stop is not None and best > 0 and mean < options.score_stop * best:
            fell = f"the mean score of {WINDOW} iterations fell to {mean:.2f}, its best was {best:.2f}"
            self._raise(f"{fell} (score_stop {options.score_stop})")

    def _raise(self, what: str, advice: str = ADVICE) -> None:
        published = [str(e["path"]) for e in self.run.events if e["kind"] == "checkpoint"]
        last = published[-1] if published else "the start, nothing was saved yet"
        raise TrainerFailed(
            f"{what} at iteration {self.run.step_now}: the run collapsed; the last good checkpoint is {last}; "
            f"try {advice}"
        )


def style(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How responses look, means over rollouts: tokens, share that ended, repeated n-grams, and share of texts that no
    other response to the same prompt has."""
    n = len(rollouts)
    lengths = sorted(len(r.response.ids) for r in rollouts)
    by_prompt: dict[int, set[str]] = {}
    for rollout in rollouts:
        by_prompt.setdefault(rollout.prompt.number, set()).add(rollout.text)
    return {
        "length": sum(lengths) / n,
        "length_p95": float(lengths[min(n - 1, int(0.95 * n))]),
        "finished": sum(r.response.finished for r in rollouts) / n,
        "repeated": sum(repeated(r.response.ids) for r in rollouts) / n,
        "distinct": sum(map(len, by_prompt.values())) / n,
    }


def repeated(ids: Sequence[int]) -> float:
    """Share of the n-grams of a response that it has had before; 0 for one that is shorter."""
    grams = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def drifts(first: Mapping[str, float], now: Mapping[str, float]) -> list[tuple[str, str]]:
    """(code, text) for each way in which responses changed since the first iterations by more than is usual."""
    found = []
    repeats, unlike, ended = (f"{first[key]:.0%} to {now[key]:.0%}" for key in ("repeated", "distinct", "finished"))
    ratio = now["length"] / max(first["length"], 1e-9)
    if not 1 / LENGTH < ratio < LENGTH:
        found.append(("length_drift", f"responses went from {first['length']:.0f} to {now['length']:.0f} tokens"))
    if now["repeated"] > first["repeated"] + REPEATED:
        found.append(("repetition_drift", f"repeated {GRAM}-grams went from {repeats}"))
    if now["distinct"] < first["distinct"] - UNLIKE:
        found.append(("diversity_drift", f"distinct answers went from {unlike}"))
    if now["finished"] < first["finished"] - UNFINISHED:
        found.append(("format_drift", f"responses that end went from {ended}"))
    return found
