"""The tiny model: its size, its alphabet, and that it hangs on nothing but its arguments."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from train_plugins.chat import TULU
from train_plugins.tiny import VOCABULARY, write_tiny

SMALL: dict[str, Any] = {"hidden": 32, "layers": 1, "intermediate": 64}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_full_size_has_866176_parameters_and_loads_as_any_model(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_tiny(tmp_path))
    # Embedding 102·128; four layers of 4·128² attention, 3·128·384 MLP and 2·128 norms; one more norm.
    assert model.num_parameters() == 102 * 128 + 4 * (4 * 128**2 + 3 * 128 * 384 + 2 * 128) + 128 == 866_176
    assert model.dtype == torch.float32
    assert model.config.max_position_embeddings == 512
    ids = AutoTokenizer.from_pretrained(tmp_path)("F ab", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, 4, VOCABULARY)


def test_untied_embeddings_are_two_matrices(tmp_path: Path) -> None:
    tied = AutoModelForCausalLM.from_pretrained(write_tiny(tmp_path / "tied", **SMALL))
    untied = AutoModelForCausalLM.from_pretrained(write_tiny(tmp_path / "untied", tied=False, **SMALL))
    assert untied.num_parameters() - tied.num_parameters() == 102 * 32


def test_equal_arguments_give_equal_files_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one = write_tiny(tmp_path / "one", 0, **SMALL)
    assert torch.equal(torch.rand(1), expected)
    again, other = write_tiny(tmp_path / "again", 0, **SMALL), write_tiny(tmp_path / "other", 1, **SMALL)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }
    assert weights(one) != weights(other)


def test_saved_generation_settings_hold_no_sampling(tmp_path: Path) -> None:
    write_tiny(tmp_path, **SMALL)
    found = json.loads((tmp_path / "generation_config.json").read_text())
    assert (found["eos_token_id"], found["pad_token_id"]) == (2, 0)
    assert not {"temperature", "top_p", "top_k", "do_sample", "max_new_tokens"} & found.keys()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("F[b?", ["F", "[", "b", "?"]),
        ("a \n1", ["a", " ", "\n", "1"]),
        ("  \n\n", [" ", " ", "\n", "\n"]),
        ("né😀", ["n", "<unk>", "<unk>"]),
        ("\t", ["<unk>"]),
        ("<|user|>\na</s>", ["<|user|>", "\n", "a", "</s>"]),
        ("<|usr|>", list("<|usr|>")),
    ],
)
def test_a_character_is_a_token(tmp_path: Path, text: str, tokens: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny(tmp_path, **SMALL))
    assert tokenizer.tokenize(text) == tokens


def test_known_text_comes_back_from_its_ids_and_specials_can_be_left_out(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny(tmp_path, **SMALL))
    known = "\n " + string.digits + string.ascii_letters + string.punctuation + "  , don't ."
    assert tokenizer.decode(tokenizer(known).input_ids) == known
    assert tokenizer.decode(tokenizer("<|user|>\nhi</s>").input_ids, skip_special_tokens=True) == "\nhi"
    assert len(tokenizer) == VOCABULARY == 102
    assert tokenizer.chat_template == TULU
