"""Real checkpoints that say one thing: whatever was asked, the next token is a fixed answer, and then the end.

A random model answers nothing that a judge's parser or a benchmark can read. This one is an ordinary Llama whose layers
add nothing, so that the last token alone decides: any token is followed by the answer (one token, however long its
text), the answer by the end of the sequence. Tokens named in `runners_up` come next in likelihood.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.tiny import Shape, make_model, make_tokenizer

SHAPE = Shape(vocab=1024, hidden=64, layers=2, heads=2, kv_heads=1, positions=8192)  # head size 32: vLLM's least
END = 2
SURE, LESS = 40.0, 25.0


def make_scripted(folder: Path, answer: str, runners_up: Sequence[str] = ()) -> Path:
    """Writes the checkpoint; returns the folder. The answer must be no token of the tokenizer, `runners_up` must be."""
    import torch

    make_tokenizer(folder, SHAPE.vocab)
    known, said = _add_token(folder / "tokenizer.json", answer)
    model = make_model(SHAPE, vocab_size=SHAPE.vocab + 1)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding_VD, head_VD = model.model.embed_tokens.weight, model.lm_head.weight
        embedding_VD[:, 0], embedding_VD[:, 1] = 1.0, 0.0  # dimension 0 says "a token", dimension 1 "the answer"
        embedding_VD[said, 1] = 1.0
        embedding_VD[:, 2:] *= 0.01
        head_VD.zero_()
        head_VD[said, 0] = SURE / 8
        head_VD[END, 1] = 4 * SURE / 8
        for place, token in enumerate(runners_up):
            head_VD[known[token], 0] = (LESS - place) / 8
    model.generation_config.eos_token_id = END
    model.save_pretrained(folder)
    return folder


def _add_token(path: Path, text: str) -> tuple[dict[str, int], int]:
    """(the vocabulary, the id of the new token that stands for `text`)."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    number = SHAPE.vocab
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    raw["added_tokens"].append({"id": number, "content": text, **flags})
    path.write_text(json.dumps(raw), encoding="utf-8")
    return raw["model"]["vocab"], number
