"""Text to token ids exactly as lm-eval encodes it, in batches; a document is encoded with all its options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Literal

from evalsuite.checkpoint.files import read_json
from evalsuite.models.tokens import Loaded, load_tokens
from evalsuite.types import Failed, LoglikRequest, Prompt

CHUNK_STRINGS = 4096
CHUNK_CHARACTERS = 2_000_000  # the Rust tokenizer holds ~100 bytes per token of a batch: this keeps a chunk near 60 MB
DEFAULT_WINDOW = 2048  # what lm-eval assumes of a model that does not say


@dataclass(frozen=True, slots=True)
class EncodedDoc:
    """A document as token ids. Context and option in a row need not be the encoding of the whole text."""

    context_ids: tuple[int, ...]
    option_ids: tuple[tuple[int, ...], ...]


class Encoder:
    """A checkpoint's tokenizer: text to ids and back, and the ids and texts of its special tokens.

    `eos_ids` end a generation (the tokenizer's and those of generation_config.json); `prefix_id` stands for an empty
    context (BOS, else EOS, else None); `vocab_size` counts added tokens; `special_ids` and `special_texts` (longest
    first) are what `decode(…, skip_special=True)` leaves out; `adds_bos` says that plain text gets a BOS by default;
    `why_transformers` is empty when tokenizer.json alone was enough.
    """

    def __init__(self, loaded: Loaded, generation_eos: frozenset[int] = frozenset()) -> None:
        tokens, specials = loaded.tokens, loaded.specials
        self._tokens = tokens
        self.why_transformers = loaded.why_transformers
        self.bos_id, self.eos_id = (tokens.id_of(specials.get(name)) for name in ("bos_token", "eos_token"))
        self.prefix_id = self.bos_id if self.bos_id is not None else self.eos_id
        self.bos_text, self.eos_text, self._prefix_text = (
            "" if id is None else self.decode([id], skip_special=False)
            for id in (self.bos_id, self.eos_id, self.prefix_id)
        )
        self.eos_ids = generation_eos | {id for id in [self.eos_id] if id is not None}
        added = tokens.special()
        self.special_ids = frozenset(added)
        self.special_texts = tuple(sorted(added.values(), key=lambda text: (-len(text), text)))
        self.vocab_size = tokens.size()
        self.adds_bos = self.bos_id is not None and self.encode("a", chat=False)[0] == self.bos_id

    @classmethod
    def from_checkpoint(cls, folder: Path, *, trust_remote_code: bool = False) -> Encoder:
        """The encoder of a checkpoint folder. Raises CheckpointError when it has no tokenizer that can be read."""
        folder = Path(folder)
        return cls(load_tokens(folder, trust_remote_code=trust_remote_code), _generation_eos(folder))

    def encode(self, text: str, *, chat: bool) -> list[int]:
        """Token ids. Chat text gets no special tokens; plain text gets the tokenizer's own (`encode_batch`)."""
        return self.encode_batch([text], chat=chat)[0]

    def encode_batch(self, texts: Sequence[str], *, chat: bool) -> list[list[int]]:
        """Token ids of every text, decided per text: special tokens as the tokenizer adds them, none to chat text and
        none to text that already starts with the prefix token (lm-eval 0.4.13 `HFLM.tok_encode`).

        Lone surrogates, which no tokenizer takes, become U+FFFD.
        """
        if chat or self.prefix_id is None:
            return self._tokens.encode(texts, special=not chat)
        begun = [text.startswith(self._prefix_text) for text in texts]
        if not any(begun):
            return self._tokens.encode(texts, special=True)
        with_prefix = iter(self._tokens.encode(list(compress(texts, begun)), special=False))
        without = iter(self._tokens.encode([t for t, b in zip(texts, begun, strict=True) if not b], special=True))
        return [next(with_prefix if b else without) for b in begun]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Text of token ids, with or without special tokens. An incomplete character at the end shows as U+FFFD."""
        return self._tokens.decode(ids, skip_special=skip_special)


def encode_options(encoder: Encoder, context: Prompt, options: Sequence[str]) -> EncodedDoc:
    """Context and options as lm-eval splits them (`TemplateLM._encode_pair`, 0.4.13).

    White space at the end of the context moves to the front of every option. The option's tokens are the tail of the
    encoded whole after as many tokens as the context alone has; where a merge crosses the boundary, context plus
    option is not the encoding of the whole, and that is reproduced. An empty context becomes the prefix token.
    Raises ValueError when an option or the context has no tokens of its own.
    """
    (encoded,) = encode_documents(encoder, [LoglikRequest(context, tuple(options))])
    if isinstance(encoded, Failed):
        raise ValueError(encoded.why)
    return encoded


def encode_documents(encoder: Encoder, requests: Sequence[LoglikRequest]) -> list[EncodedDoc | Failed]:
    """`encode_options` of every request, in order, batched; `Failed` where that raises."""
    # One int object per id, not one per token: 10^7 tokens of context take 90 MB and not 800.
    shared: dict[int, int] = {}
    return [encoded for chunk in _chunks(requests) for encoded in _encode_chunk(encoder, chunk, shared)]


def bos_source(encoder: Encoder, prompt: Prompt) -> Literal["template", "tokenizer", "none", "twice"]:
    """Who puts the BOS in front of a prompt: its own text, the tokenizer, nobody; "twice" when more than one does."""
    ids = encoder.encode(prompt.text, chat=prompt.chat)
    if encoder.bos_id is None or ids[:1] != [encoder.bos_id]:
        return "none"
    if ids[1:2] == [encoder.bos_id]:
        return "twice"
    return "template" if prompt.text.startswith(encoder.bos_text) else "tokenizer"


def model_window(folder: Path) -> int:
    """The longest sequence in tokens that the checkpoint says it takes (lm-eval's `resolve_max_length`)."""
    config = read_json(Path(folder) / "config.json")
    nested = config.get("text_config")
    for source in (nested, config) if isinstance(nested, dict) else (config,):
        for key in ("n_positions", "max_position_embeddings", "n_ctx"):
            if isinstance(source.get(key), int):
                return int(source[key])
    limit = read_json(Path(folder) / "tokenizer_config.json").get("model_max_length")
    if isinstance(limit, int | float) and 0 < limit < int(1e30):
        return int(limit)
    return DEFAULT_WINDOW


def _chunks(requests: Sequence[LoglikRequest]) -> Iterator[Sequence[LoglikRequest]]:
    """Consecutive requests in groups that the tokenizer takes in one call."""
    start = strings = characters = 0
    for index, request in enumerate(requests):
        more = len(request.options) + 1
        length = more * len(request.context.text)
        if index > start and (strings + more > CHUNK_STRINGS or characters + length > CHUNK_CHARACTERS):
            yield requests[start:index]
            start, strings, characters = index, 0, 0
        strings += more
        characters += length
    if start < len(requests):
        yield requests[start:]


def _encode_chunk(
    encoder: Encoder, requests: Sequence[LoglikRequest], shared: dict[int, int]
) -> Iterator[EncodedDoc | Failed]:
    texts: dict[bool, list[str]] = {True: [], False: []}  # by "no special tokens"
    for request in requests:
        context = request.context.text
        # The white space that moves to the option is still in the whole: only the context alone loses it.
        wholes = [context + option for option in request.options]
        texts[request.context.chat or not context] += [context.rstrip(), *wholes]
    rows = {bare: iter(encoder.encode_batch(batch, chat=bare)) for bare, batch in texts.items()}
    for request in requests:
        mine = rows[request.context.chat or not request.context.text]
        encoded = _split(encoder, request, next(mine), [next(mine) for _ in request.options])
        if isinstance(encoded, EncodedDoc):
            context_ids, *option_ids = (
                tuple(map(shared.setdefault, ids, ids)) for ids in (encoded.context_ids, *encoded.option_ids)
            )
            encoded = EncodedDoc(context_ids, tuple(option_ids))
        yield encoded


def _split(
    encoder: Encoder, request: LoglikRequest, context: list[int], wholes: list[list[int]]
) -> EncodedDoc | Failed:
    n_context = len(context)
    if not request.context.text:
        if encoder.prefix_id is None:
            return Failed("the context is empty and the tokenizer has neither BOS nor EOS to stand for it")
        context = [encoder.prefix_id]
        # An option that brings the prefix token itself gives it up: it is the context then.
        options = [tuple(whole[1:] if whole[:1] == context else whole) for whole in wholes]
    else:
        options = [tuple(whole[n_context:]) for whole in wholes]
    if not context:
        return Failed(f"the context {request.context.text!r} is only white space and has no tokens of its own")
    for index, option in enumerate(options):
        if not option:
            return Failed(
                f"option {index + 1} of {len(options)} ({request.options[index][:80]!r}) has no tokens of its own"
            )
    return EncodedDoc(tuple(context), tuple(options))


def _generation_eos(folder: Path) -> frozenset[int]:
    """End-of-sequence ids of generation_config.json (a number or a list); of config.json when that file is absent."""
    file = folder / "generation_config.json"
    value = read_json(file if file.is_file() else folder / "config.json").get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    return frozenset(i for i in ids if isinstance(i, int))
