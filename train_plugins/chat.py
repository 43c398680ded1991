"""Conversations into token ids and labels: the Tülu template, which tokens have a loss, and the two sides of a pair.

The mask is that of the release of Tülu 3 (open-instruct at 9c2d44b, `encode_sft_example`): a token has a loss where it
begins in the content or the end-of-text of an assistant turn. A token that begins in the role header and runs into the
content (`|>` and a line break of the content are one token for Llama 3) has none, since no model is asked for it.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalsuite.errors import UsageError, did_you_mean

IGNORED = -100  # torch's label of a position that has no loss
PAD = "<pad>"
MARKER = re.compile(r"{%-?\s*generation\s*-?%}")

# Byte for byte what open-instruct's `tulu` renders. The markers around content and end-of-text render nothing; they
# tell transformers and TRL which characters the assistant said.
TULU = """\
{%- for message in messages %}
{%- if message['role'] == 'assistant' %}
{{- '<|assistant|>\\n' }}
{%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}
{{- '' if loop.last else '\\n' }}
{%- elif message['role'] in ['system', 'user'] %}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}
{%- else %}
{{- raise_exception('no role ' + message['role'] + ' in this template; expected system, user or assistant') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\\n' }}
{%- endif %}
"""
PROBE = (
    {"role": "user", "content": "first question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question"},
    {"role": "assistant", "content": "second answer"},
)
HINT = "use chat_template: tulu, or put {% generation %} and {% endgeneration %} around content and end-of-text"

Messages = Sequence[Mapping[str, str]]
Response = Literal["last_turn", "all_assistant"]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Ids of a conversation and, at the same places, their labels. `truncated`: tokens were cut off its end."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: bool = False

    @property
    def n_labels(self) -> int:
        """Tokens that have a loss. The first token of a sequence never has: nothing comes before it."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """Two conversations as what they share and what each goes on with.

    `prompt + chosen` is the whole first conversation, `prompt + rejected` the second; labels stand at the same places.
    Labels in the prompt (`all_assistant`: earlier answers) count for both sides.
    """

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_labels: tuple[int, ...]
    chosen_labels: tuple[int, ...]
    rejected_labels: tuple[int, ...]
    chosen_truncated: bool = False
    rejected_truncated: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens of a row that holds the prompt once."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def usable(self) -> bool:
        """Whether truncation left both sides tokens to compare; other pairs are dropped and counted."""
        return self.whole("chosen").n_labels > 0 and self.whole("rejected").n_labels > 0

    def whole(self, side: Literal["chosen", "rejected"]) -> Tokenized:
        """One side with the prompt before it, as `tokenise` would give it."""
        if side == "chosen":
            return Tokenized(self.prompt + self.chosen, self.prompt_labels + self.chosen_labels, self.chosen_truncated)
        ids, labels = self.prompt + self.rejected, self.prompt_labels + self.rejected_labels
        return Tokenized(ids, labels, self.rejected_truncated)


def load_template(name: str, folder: Path) -> str:
    """The text of a chat template: `tulu`, `own` (the one of the model in `folder`) or a file."""
    if name == "tulu":
        return TULU
    if name == "own":
        return _own_template(folder)
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    near = did_you_mean(name, ("tulu", "own"))
    raise UsageError(f"no chat template {name!r}{near}; expected tulu, own (the template of the start) or a file")


def load_tokenizer(folder: Path, template: str) -> Any:
    """The tokenizer of a model folder with a checked chat template and a pad token, `<pad>` where it had none.

    `template` is the text of a template or a name that `load_template` knows. A tokenizer that got `<pad>` may be
    longer than the embedding of the model, which must be resized then.
    """
    from transformers import AutoTokenizer

    text = template if "{" in template else load_template(template, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_template(tokenizer, text)
    tokenizer.chat_template = text
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return tokenizer


def check_template(tokenizer: Any, template: str) -> None:
    """Raises UsageError where the model would never learn to stop, or learn what the user says."""
    name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
    if tokenizer.eos_token_id is None:
        raise UsageError(f"{name}: no end-of-text token, so a model never learns to stop; set eos_token in its config")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UsageError(
            f"{name}: pad_token and eos_token are both {tokenizer.eos_token!r}, so the end would be masked like "
            "padding; set another pad_token in tokenizer_config.json, or take it out and <pad> is added"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{name}: no tokenizer.json; labels need the offsets of a fast tokenizer")
    if not MARKER.search(template):
        raise UsageError(f"the chat template has no generation markers; {HINT}")
    text, spans = _render(tokenizer, PROBE, template)
    said = [text[start:end] for start, end in spans]
    answers = [message["content"] for message in PROBE if message["role"] == "assistant"]
    if len(said) != len(answers) or any(answer not in part for answer, part in zip(answers, said, strict=True)):
        raise UsageError(
            f"the chat template marks {len(said)} turns of a conversation with {len(answers)} answers as said by the "
            f"assistant; {HINT}"
        )
    if any(message["content"] in "".join(said) for message in PROBE if message["role"] == "user"):
        raise UsageError(f"the generation markers of the chat template hold the user's words; {HINT}")
    if any(tokenizer.eos_token not in part for part in said):
        raise UsageError(
            f"the chat template has {tokenizer.eos_token!r} outside its generation markers, so a model never learns "
            f"to stop; {HINT}"
        )


def tokenise(tokenizer: Any, messages: Messages, max_length: int) -> Tokenized:
    """Ids, and labels on content and end-of-text of every assistant turn; of a long one the start is kept."""
    return _cut(_encode(tokenizer, messages), max_length, "all_assistant")


def tokenise_pair(
    tokenizer: Any, chosen_messages: Messages, rejected_messages: Messages, max_length: int, response: Response
) -> TokenizedPair:
    """Both sides of a pair, each cut after `max_length` tokens, prompt included.

    `last_turn` compares the last assistant turn, `all_assistant` every one, as the release of Tülu 3 did
    (arXiv 2411.15124; open-instruct encodes both sides as for fine-tuning).
    """
    both = (chosen_messages, rejected_messages)
    chosen, rejected = (_encode(tokenizer, messages) for messages in both)
    n_prompt = _n_shared(chosen, rejected, *both)
    one, other = (_cut(side, max_length, response) for side in (chosen, rejected))
    return TokenizedPair(
        prompt=one.ids[:n_prompt],
        chosen=one.ids[n_prompt:],
        rejected=other.ids[n_prompt:],
        prompt_labels=one.labels[:n_prompt],
        chosen_labels=one.labels[n_prompt:],
        rejected_labels=other.labels[n_prompt:],
        chosen_truncated=one.truncated,
        rejected_truncated=other.truncated,
    )


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Ids of a conversation and, for each assistant turn, the first token of its labels and the one after them."""

    ids: tuple[int, ...]
    turns: tuple[tuple[int, int], ...]

    def labels(self, turns: Iterable[tuple[int, int]]) -> tuple[int, ...]:
        labels = [IGNORED] * len(self.ids)
        for first, after in turns:
            labels[first:after] = self.ids[first:after]
        return tuple(labels)


def _encode(tokenizer: Any, messages: Messages) -> _Encoded:
    text, spans = _render(tokenizer, messages, tokenizer.chat_template)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    begins = [begin for begin, _ in encoded["offset_mapping"]]
    turns = tuple((bisect_left(begins, start), bisect_left(begins, end)) for start, end in spans)
    return _Encoded(tuple(encoded["input_ids"]), turns)


def _render(tokenizer: Any, messages: Messages, template: str) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation and the (start, end) of what the assistant said in it, in characters."""
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, spans = render_jinja_template(
            [list(messages)],
            chat_template=template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except TemplateError as error:
        raise UsageError(f"the chat template refuses a conversation: {error}") from error
    return texts[0], spans[0]


def _n_shared(chosen: _Encoded, rejected: _Encoded, chosen_messages: Messages, rejected_messages: Messages) -> int:
    """Tokens before the first answer that differs; the header of that answer is shared."""
    n_messages = min(_n_equal(chosen_messages, rejected_messages), len(chosen_messages) - 1, len(rejected_messages) - 1)
    n_answers = sum(message["role"] == "assistant" for message in chosen_messages[:n_messages])
    ends = [side.turns[n_answers][0] for side in (chosen, rejected) if n_answers < len(side.turns)]
    return min(_n_equal(chosen.ids, rejected.ids), *ends) if ends else _n_equal(chosen.ids, rejected.ids)


def _n_equal(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items two sequences have in common at their start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _cut(side: _Encoded, max_length: int, response: Response) -> Tokenized:
    labels = side.labels(side.turns if response == "all_assistant" else side.turns[-1:])
    return Tokenized(side.ids[:max_length], labels[:max_length], len(side.ids) > max_length)


def _own_template(folder: Path) -> str:
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(found, list):  # several named ones, as older versions of transformers wrote them
        found = {entry["name"]: entry["template"] for entry in found}.get("default")
    if not isinstance(found, str):
        raise UsageError(f"{folder} has no chat template of its own; set chat_template: tulu or a file")
    return found
