"""W1: few-shot multiple choice with options of several words, `hf` against lm-eval's hf backend."""

from __future__ import annotations

from evalsuite.types import LoglikRequest, Prompt
from tests.speed.likelihoods import Row, compare
from tests.tiny import BENCH22, words

N_TEST = 300
GOAL, BAR = 25.0, 10.0


def documents(n_test: int) -> tuple[list[tuple[str, list[str], int]], list[tuple[str, list[str], int]]]:
    """5 training and `n_test` test documents: question of 55 words, 4 choices of 1, 2, 3 or 5 words, answer."""
    draw, pool = words()

    def text(n: int) -> str:
        return " ".join(draw.choice(pool) for _ in range(n))

    def one() -> tuple[str, list[str], int]:
        question = text(55)
        choices = [text(draw.choice([1, 2, 3, 5])) for _ in range(4)]
        return question, choices, draw.randrange(4)

    return [one() for _ in range(5)], [one() for _ in range(n_test)]


def requests(n_test: int) -> list[LoglikRequest]:
    """5-shot prompts as lm-eval writes them: `Question: …`, newline, `Answer:`; a blank line between shots."""
    train, test = documents(n_test)
    shots = "".join(f"Question: {q}\nAnswer: {choices[answer]}\n\n" for q, choices, answer in train)
    return [
        LoglikRequest(Prompt(f"{shots}Question: {q}\nAnswer:"), tuple(f" {choice}" for choice in choices))
        for q, choices, _ in test
    ]


def run(scale: float = 1.0) -> list[Row]:
    """One row; at scale 1 the baseline takes several minutes."""
    n = max(20, round(N_TEST * scale))
    return [compare("W1 few-shot options", BENCH22, requests(n), GOAL, f"{n} documents × 4 options, 5 shots")]
