"""Which files make up a checkpoint folder, and whether they are all there. Reads names and small JSON files only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import CheckpointError, did_you_mean

UNFINISHED = ("*.tmp", "*.incomplete", "*.partial", "*.part", "*.aria2", "*.crdownload")
DOWNLOADS = ".cache/huggingface/download"  # where a download into a folder keeps what is not complete

TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.tiktoken",
    "tiktoken.model", "tekken.json", "vocab.json", "vocab.txt",
)  # fmt: skip
WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")  # bytes or code points are their ids

BESIDE_WEIGHTS = (
    *TOKENIZERS, "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "merges.txt", "chat_template.jinja", "chat_template.json", "quantize_config.json",
    "quant_config.json", "hf_quant_config.json",
)  # fmt: skip
"""The files that can change what a model answers; a trainer's own state (optimizer.pt, …) and readmes cannot."""

_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt)")
_NOT_WEIGHTS = re.compile(
    r"(optimizer|scheduler|training_args|rng_state|scaler|random_states|trainer_state|sampler|dl_state|adapter_).*"
)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a checkpoint, relative to its folder. `pickled` weights have no header that could be read safely."""

    weights: tuple[str, ...]
    others: tuple[str, ...]
    pickled: bool
    config: Mapping[str, Any]
    weight_map: Mapping[str, str]  # tensor -> file, of sharded weights


def find_files(folder: Path, *, allow_pickle: bool, trust_remote_code: bool) -> Files:
    """The files of a checkpoint folder. Raises CheckpointError when any is missing, unfinished or unsafe."""
    _check_folder(folder)
    names = {path.name for path in folder.iterdir()}
    _check_finished(folder)
    _check_adapter(folder, names)
    config = _read_config(folder, names)
    _check_code(folder, trust_remote_code)
    _check_tokenizer(folder, names)
    for name in sorted(names & {"generation_config.json", "tokenizer_config.json", "special_tokens_map.json"}):
        read_json(folder / name)
    weights, index, weight_map = _find_weights(folder, names, allow_pickle)
    others = [name for name in names if name in BESIDE_WEIGHTS or name.endswith((".tiktoken", ".model"))]
    others += [str(path.relative_to(folder)) for path in folder.glob("additional_chat_templates/*.jinja")]
    if trust_remote_code:
        others += [name for name in names if name.endswith(".py")]
    pickled = not weights[0].endswith(".safetensors")
    return Files(weights, tuple(sorted({*others, *index})), pickled, config, weight_map)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or {} when there is no such file. Raises CheckpointError naming file and place."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        raise CheckpointError(
            f"{path}: not valid JSON ({error}); copy the file or save the checkpoint again"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise CheckpointError(
            f"{path}: expected a JSON object, found {kind}; copy the file or save the checkpoint again"
        )
    return content


def _check_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.exists():
        raise CheckpointError(
            f"{folder}: this is a file; a checkpoint is a folder with config.json, a tokenizer and *.safetensors"
        )
    siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = did_you_mean(folder.name, siblings)
    advice = "a checkpoint is a local folder"
    asked = os.path.relpath(folder)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", asked) and not folder.parent.is_dir():
        advice = f"a hub model is downloaded first: hf download {asked} --local-dir {folder.name}"
    raise CheckpointError(f"{str(folder)!r}: no such checkpoint folder{near} ({advice})")


def _check_finished(folder: Path) -> None:
    left = [path for pattern in UNFINISHED for path in folder.glob(pattern)]
    left += (folder / DOWNLOADS).rglob("*.incomplete")
    left += [folder] if folder.name.startswith("tmp-checkpoint") else []
    if left:
        raise CheckpointError(
            f"{sorted(left)[0]}: half-written checkpoint, a save or download left this behind; wait until it is done, "
            "start it again, or delete the file if the checkpoint is complete without it"
        )


def _check_adapter(folder: Path, names: set[str]) -> None:
    """An adapter is refused with and without weights beside it: some engines apply it then, some do not."""
    if "adapter_config.json" not in names:
        return
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if any(name.startswith(("model", "pytorch_model")) and name.endswith((".safetensors", ".bin")) for name in names):
        raise CheckpointError(
            f"{folder / 'adapter_config.json'}: an adapter beside full weights, which only some engines would apply; "
            "merge it into the weights, or move adapter_config.json away if they are merged already"
        )
    raise CheckpointError(
        f"{folder}: a LoRA adapter alone, without its base model ({base!r}); merge it first, in Python: "
        "peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW), "
        "save the tokenizer to NEW too, and score NEW"
    )


def _read_config(folder: Path, names: set[str]) -> dict[str, Any]:
    if "config.json" in names:
        config = read_json(folder / "config.json")
        if "model_type" not in config:
            raise CheckpointError(
                f"{folder / 'config.json'}: no 'model_type' in it, so this is no transformers configuration; "
                "copy the file again or save the model again with save_pretrained"
            )
        return config
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inside:
        shown = ", ".join(inside[-3:])
        advice = f"the checkpoints are inside: {shown}; name one, as in {folder / inside[-1]}"
    elif any(
        name.endswith((".distcp", ".metadata")) or name.startswith(("global_step", "pytorch_model_fsdp"))
        for name in names
    ):
        advice = (
            "these are a trainer's sharded states: consolidate them (accelerate merge-weights, zero_to_fp32.py) first"
        )
    elif any(name.endswith(".gguf") for name in names):
        advice = "GGUF files are not read; take the safetensors version of this model"
    else:
        advice = "take a checkpoint whose save was completed, or save again with save_pretrained"
    raise CheckpointError(f"{folder}: half-written or no checkpoint, there is no config.json; {advice}")


def _check_code(folder: Path, trusted: bool) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in read_json(folder / name) and not trusted:
            raise CheckpointError(
                f"{folder / name}: this checkpoint brings code of its own (auto_map), which is not run; read that code "
                "and pass --trust-remote-code, or delete auto_map where transformers knows the architecture"
            )


def _check_tokenizer(folder: Path, names: set[str]) -> None:
    if names & set(TOKENIZERS) or any(name.endswith(".tiktoken") for name in names):
        return
    if read_json(folder / "tokenizer_config.json").get("tokenizer_class") in WITHOUT_VOCABULARY:
        return
    raise CheckpointError(
        f"{folder}: no tokenizer (expected tokenizer.json or tokenizer.model); save it there with "
        "tokenizer.save_pretrained, or copy the base model's tokenizer files"
    )


def _find_weights(
    folder: Path, names: set[str], allow_pickle: bool
) -> tuple[tuple[str, ...], list[str], dict[str, str]]:
    """(weight files, index files, tensor -> file)."""
    index, single = "model.safetensors.index.json", "model.safetensors"
    shards = sorted(name for name in names if _SHARD.fullmatch(name))
    if index in names:
        weight_map = _read_index(folder, index, names)
        stale = sorted((names & {single, *shards}) - set(weight_map.values()))
        if stale:
            raise CheckpointError(
                f"{folder / stale[0]}: weights that {index} does not name, left over from another save; engines "
                "disagree on which to load, so delete the set that is not meant"
            )
        return tuple(sorted(set(weight_map.values()))), [index], weight_map
    if shards:
        raise CheckpointError(
            f"{folder / shards[0]}: half-written checkpoint, one shard of several but no {index}; "
            "copy that too, or save again"
        )
    if single in names:
        return (single,), [], {}
    return _pickled_weights(folder, names, allow_pickle)


def _pickled_weights(
    folder: Path, names: set[str], allow_pickle: bool
) -> tuple[tuple[str, ...], list[str], dict[str, str]]:
    pickles = sorted(name for name in names if _PICKLE.fullmatch(name) and not _NOT_WEIGHTS.fullmatch(name))
    if not pickles:
        other = sorted(name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_"))
        found = (
            f"found {', '.join(other)}; rename or merge it to model.safetensors" if other else "save the model again"
        )
        raise CheckpointError(
            f"{folder}: half-written checkpoint, no weights (expected model.safetensors or its shards); {found}"
        )
    if not allow_pickle:
        raise CheckpointError(
            f"{folder / pickles[0]}: pickled weights can run code when they are loaded, and there are no safetensors; "
            "save the model again with save_pretrained (it writes safetensors), or pass --allow-pickle if you trust it"
        )
    index = "pytorch_model.bin.index.json"
    if index in names:
        weight_map = _read_index(folder, index, names)
        return tuple(sorted(set(weight_map.values()))), [index], weight_map
    return tuple(pickles), [], {}


def _read_index(folder: Path, index: str, names: set[str]) -> dict[str, str]:
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / index}: no 'weight_map' in it; save the checkpoint again")
    missing = sorted({str(file) for file in weight_map.values()} - names)
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise CheckpointError(
            f"{folder / index}: half-written checkpoint, it names {len(missing)} shard(s) that are not in the folder "
            f"({shown}); copy them there or take a checkpoint whose save was completed"
        )
    return {str(tensor): str(file) for tensor, file in weight_map.items()}
