"""Stock `lm-eval run` with a model that answers gold for every other document: what our own path is compared with.

Run as `python -m tests.benchmarks.table_lm run --model table --model_args checkpoint=…,out=… …`. Every prompt and
answer is written to `out` (JSON), so that the same answers can be given to ours.
"""

from __future__ import annotations

import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from evalsuite.benchmark import find_benchmark, known_benchmarks


def unit(text: str) -> float:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def module_of(task: str) -> Any:
    """verify.py of the benchmark that a task belongs to."""
    name = max((n for n in known_benchmarks() if task == n or task.startswith(f"{n}_")), key=len)
    return find_benchmark(name).module


@register_model("table")
class TableLM(LM):
    """Renders like lm-eval's own hf model; answers gold where the prompt's hash is even, and a near miss elsewhere."""

    def __init__(self, checkpoint: str, out: str, **_: Any) -> None:
        super().__init__()
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.out = Path(out)
        self.table: dict[str, Any] = {}

    @property
    def tokenizer_name(self) -> str:
        return "table"

    def apply_chat_template(self, history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        answers = []
        for request in requests:
            prompt = str(request.args[0])
            gold = module_of(request.task_name).gold_response(request.doc)
            miss = "Answer: no (B) 7, said twice"
            self.table[prompt] = gold if unit(prompt) < 0.5 else miss
            answers.append(self.table[prompt])
        self._dump()
        return answers

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        totals = []
        for request in requests:
            context, option = (str(a) for a in request.args)
            total = -10 * unit(context + option)
            self.table.setdefault(context, {})[option] = total
            totals.append((total, False))
        self._dump()
        return totals

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("none of our tasks asks for rolling log-likelihoods")

    def _dump(self) -> None:
        self.out.write_text(json.dumps(self.table))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.argv[0] = "lm-eval"
    cli_evaluate()
