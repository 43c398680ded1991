"""A checkpoint's tokenizer: tokenizer.json by the Rust library where that says it all, else through transformers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalsuite.checkpoint.files import read_json
from evalsuite.errors import CheckpointError

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""The tokenizer classes that take tokenizer.json as it is; every other one may rebuild it in code of its own."""

PLAIN_MODEL_TYPES = frozenset(
    (
        "falcon",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "phi",
        "qwen3",
        "smollm3",
    )
)
"""Model types for which transformers 5 believes such a class; for some others (qwen2, phi3, …) it takes another one."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokens(Protocol):
    """What an encoder needs of a tokenizer library. `special` are the tokens that decoding can leave out."""

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str: ...
    def id_of(self, token: str | None) -> int | None: ...
    def special(self) -> dict[int, str]: ...
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A tokenizer, its named special tokens, and why transformers was needed (empty: it was not)."""

    tokens: Tokens
    specials: Mapping[str, str]
    why_transformers: str = ""


def load_tokens(folder: Path, *, trust_remote_code: bool = False) -> Loaded:
    """The tokenizer of a checkpoint folder. Raises CheckpointError when there is none or it cannot be read."""
    file = folder / "tokenizer.json"
    rust = _read_rust(file) if file.is_file() else None
    why = needs_transformers(folder, rust)
    if rust is not None and not why:
        return Loaded(RustTokens(rust), special_tokens(folder))
    tokenizer = _load_auto(folder, trust_remote_code)
    specials = {str(name): str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    return Loaded(_tokens_of(tokenizer), specials, why)


def special_tokens(folder: Path) -> dict[str, str]:
    """The named special tokens (`bos_token`, …) as the checkpoint's tokenizer files give them."""
    config = _tokenizer_config(folder)
    found = {name: _content(config.get(name)) for name in SPECIAL_TOKEN_NAMES}
    return {name: text for name, text in found.items() if text is not None}


def needs_transformers(folder: Path, rust: Any | None) -> str:
    """Why tokenizer.json alone does not say how this checkpoint encodes; empty when it does.

    `rust` is the `tokenizers.Tokenizer` of that file. Checked against transformers 5.19, `AutoTokenizer`.
    """
    if rust is None:
        return "there is no tokenizer.json"
    config = _tokenizer_config(folder)
    name, kind = config.get("tokenizer_class"), read_json(folder / "config.json").get("model_type")
    if name not in PLAIN_CLASSES:
        return f"tokenizer_class {name!r} may have code of its own"
    if kind is not None and kind not in PLAIN_MODEL_TYPES:
        return f"model_type {kind!r} may bring a tokenizer class of its own"
    for key in ("auto_map", "split_special_tokens", "fix_mistral_regex", "fast_tokenizer_files", "add_prefix_space"):
        if config.get(key):
            return f"tokenizer_config.json sets {key}"
    if config.get("clean_up_tokenization_spaces") and type(rust.model).__name__ != "BPE":
        return "tokenizer_config.json sets clean_up_tokenization_spaces"
    if "added_tokens_decoder" not in config and (folder / "added_tokens.json").is_file():
        return "there is an added_tokens.json"
    return _changed_ends(config, rust) or _changed_added_tokens(config, rust)


def _changed_ends(config: Mapping[str, Any], rust: Any) -> str:
    """What add_bos_token and add_eos_token would change about the tokens that the file itself adds."""
    added = rust.encode("a").ids
    bare = rust.encode("a", add_special_tokens=False).ids
    does = {"add_bos_token": added[:1] != bare[:1], "add_eos_token": added[-1:] != bare[-1:]}
    for key, does_it in does.items():
        if key in config and bool(config[key]) is not does_it:
            return f"tokenizer_config.json sets {key}"
    return ""


def _changed_added_tokens(config: Mapping[str, Any], rust: Any) -> str:
    """The first special or added token of tokenizer_config.json that tokenizer.json does not have in the same way."""
    known = {str(token.content): token for token in rust.get_added_tokens_decoder().values()}
    for value, is_special in _mentioned_tokens(config):
        token = known.get(_content(value) or "")
        flags = value if isinstance(value, dict) else {}
        if token is None or (is_special and not token.special):
            return f"special token {_content(value)!r} is not in tokenizer.json"
        if any(getattr(token, flag, None) != flags[flag] for flag in flags if flag not in ("content", "__type")):
            return f"token {_content(value)!r} has other flags in tokenizer.json"
    return ""


def _mentioned_tokens(config: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """(text or description, is it special) of every token that tokenizer_config.json names."""
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    for key, value in config.items():
        if key in SPECIAL_TOKEN_NAMES and value is not None:
            yield value, True
        elif key.endswith("_token") and isinstance(value, str):
            yield {**plain, "content": value}, True
        elif key in ("extra_special_tokens", "additional_special_tokens") and value:
            for one in value.values() if isinstance(value, dict) else value:
                yield (one if isinstance(one, dict) else {**plain, "content": one}), True
        elif key == "added_tokens_decoder":
            for one in value.values():
                yield one, False


class RustTokens:
    """A `tokenizers.Tokenizer`, with the truncation and padding that a file may hold switched off."""

    def __init__(self, tokenizer: Any) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        try:
            rows = self._tokenizer.encode_batch_fast(texts, add_special_tokens=special)
        except TypeError:  # some text is not valid Unicode; which one is not said
            rows = self._tokenizer.encode_batch_fast(without_surrogates(texts), add_special_tokens=special)
        return [row.ids for row in rows]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special))

    def id_of(self, token: str | None) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token) if token is not None else None
        return found

    def special(self) -> dict[int, str]:
        return {int(i): str(t.content) for i, t in self._tokenizer.get_added_tokens_decoder().items() if t.special}

    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))


class PythonTokens:
    """A transformers tokenizer, for those that do their work in Python."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        encode = self._tokenizer.encode
        return [list(encode(text, add_special_tokens=special)) for text in without_surrogates(texts)]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def id_of(self, token: str | None) -> int | None:
        found: int | None = self._tokenizer.convert_tokens_to_ids(token) if token is not None else None
        return found

    def special(self) -> dict[int, str]:
        ids, texts = self._tokenizer.all_special_ids, self._tokenizer.all_special_tokens
        return {int(i): str(text) for i, text in zip(ids, texts, strict=True)}

    def size(self) -> int:
        return len(self._tokenizer)


def without_surrogates(texts: Sequence[str]) -> list[str]:
    """The texts with every lone surrogate, which no tokenizer takes, replaced by U+FFFD."""
    return [_SURROGATE.sub("\ufffd", text) for text in texts]


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # the older layout keeps special tokens in a file of their own
        config = {**config, **read_json(folder / "special_tokens_map.json")}
    return config


def _content(token: Any) -> str | None:
    """The text of a token given as a string or as a description; None for anything else."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _read_rust(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"{path}: the tokenizer cannot be read ({' '.join(str(error).split())}); "
            "copy the file again, or save it again with tokenizer.save_pretrained"
        ) from error


def _load_auto(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=trust_remote_code, use_fast=True
        )
    except Exception as error:  # transformers raises a dozen kinds; each means that these files make no tokenizer
        if "auto_map" in _tokenizer_config(folder) and not trust_remote_code:
            raise CheckpointError(
                f"{folder / 'tokenizer_config.json'}: the tokenizer is code of its own (auto_map), which is not run; "
                "convert it to tokenizer.json, or run it with --trust-remote-code"
            ) from error
        raise CheckpointError(
            f"{folder}: no tokenizer can be loaded ({' '.join(str(error).split())[:300]}); "
            "save it beside the weights with tokenizer.save_pretrained"
        ) from error


def _tokens_of(tokenizer: Any) -> Tokens:
    """The Rust tokenizer inside a transformers one where it encodes and decodes the same, else the transformers one."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return PythonTokens(tokenizer)
    rust, python = RustTokens(inner), PythonTokens(tokenizer)
    probes = ["", "a", " a b", "A b\n\nc  d .", "é 漢 🙂", *rust.special().values()]
    for special in (True, False):
        rows = rust.encode(probes, special=special)
        if rows != python.encode(probes, special=special):
            return python
        if any(rust.decode(r, skip_special=special) != python.decode(r, skip_special=special) for r in rows):
            return python
    return rust
