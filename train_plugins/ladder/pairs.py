"""On-policy preference pairs for the ladder: a checkpoint answers, its verifier picks a right and a wrong response.

`python -m train_plugins.ladder.pairs CKPT PROMPTS.jsonl OUT.jsonl` writes canonical preference rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from train_plugins.rlvr.rollouts import Request, Response, Sampling

SAMPLES = 8
MAX_TOKENS = 9
AT_ONCE = 64  # prompts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prompts", type=Path, help="rlvr rows")
    parser.add_argument("out", type=Path, help="preference rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    from train_plugins.data.rows import read_rows, write_dataset

    rows = list(read_rows(options.prompts, "rlvr"))
    pairs = list(pairs_of(options.checkpoint, rows, options.seed, options.threads))
    meta = {"licence": "Apache-2.0", "origin": "generated", "prompts": len(rows)}
    write_dataset(options.out, pairs, meta)
    print(f"{len(pairs)} of {len(rows)} prompts had a right and a wrong response", file=sys.stderr)
    return 0


def pairs_of(checkpoint: Path, rows: Sequence[Mapping[str, Any]], seed: int, threads: int) -> Iterator[dict[str, Any]]:
    """A preference row for each prompt that got a right and a wrong response, the first of each."""
    import torch
    from transformers import AutoModelForCausalLM

    from train_plugins.chat import load_tokenizer
    from train_plugins.rlvr.prompts import prompt_ids
    from train_plugins.rlvr.sampling import HFGenerator

    torch.set_num_threads(threads)
    tokenizer = load_tokenizer(checkpoint, "own")
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    generator = HFGenerator(model, Sampling(MAX_TOKENS, tokenizer.eos_token_id), tokenizer.pad_token_id)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        prompts = tuple(prompt_ids(tokenizer, row["messages"]) for row in part)
        responses = generator.generate(Request(seed, 1, tuple(range(start, start + len(part))), prompts, SAMPLES))
        for i, row in enumerate(part):
            texts = _finished(tokenizer, responses[i * SAMPLES : (i + 1) * SAMPLES])
            if (pair := _pair(row, texts)) is not None:
                yield pair


def _finished(tokenizer: Any, responses: Sequence[Response]) -> list[str]:
    """Texts of the responses that ended by themselves."""
    return [tokenizer.decode(list(r.ids), skip_special_tokens=True).strip() for r in responses if r.finished]


def _pair(row: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any] | None:
    from evalsuite.verify.rewards import find_reward

    verify = find_reward(str(row["dataset"])).verify
    right = [text for text in texts if text and verify(text, row).value >= 1]
    wrong = [text for text in texts if text and verify(text, row).value < 1]
    if not (right and wrong):
        return None
    prompt = list(row["messages"])
    sides = {
        name: [*prompt, {"role": "assistant", "content": text}]
        for name, text in (("chosen", right[0]), ("rejected", wrong[0]))
    }
    return {"id": row["id"], "source": row["source"], **sides}


if __name__ == "__main__":
    sys.exit(main())
