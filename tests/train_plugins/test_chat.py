"""Conversations become what the Tülu template says, and exactly what the assistant says has a loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import UsageError
from tests.tiny import trained_tokenizer
from train_plugins.chat import (
    IGNORED,
    TULU,
    Tokenized,
    check_template,
    load_template,
    load_tokenizer,
    tokenise,
    tokenise_pair,
)
from train_plugins.tiny import write_tokenizer

BARE = TULU.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
ENOUGH = 10_000


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn."""
    said = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *said] if system is not None else said


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("characters")
    write_tokenizer(folder)
    return load_tokenizer(folder, "tulu")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A byte-level BPE, for which role headers are ordinary text, as for Llama 3."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "tokenizer.json").write_text(trained_tokenizer(1024), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return load_tokenizer(folder, "tulu")


@pytest.fixture(scope="module")
def joining(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bytes, and one merge: two line breaks are a token, whoever wrote them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("joining")
    tokens = ["</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("Ċ", "Ċ")]))
    tokenizer.add_special_tokens(tokens[:2])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return load_tokenizer(folder, "tulu")


def said(tokenizer: Any, found: Tokenized) -> str:
    return str(tokenizer.decode([label for label in found.labels if label != IGNORED]))


RENDERED = [
    (turns("a", "b"), "<|user|>\na\n<|assistant|>\nb</s>", "b</s>"),
    (turns("a", "b", system="s"), "<|system|>\ns\n<|user|>\na\n<|assistant|>\nb</s>", "b</s>"),
    (
        turns("a", "c d", "e", "g h"),
        "<|user|>\na\n<|assistant|>\nc d</s>\n<|user|>\ne\n<|assistant|>\ng h</s>",
        "c d</s>g h</s>",
    ),
    (
        turns("a", "b", "c", "d", system="s"),
        "<|system|>\ns\n<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\nd</s>",
        "b</s>d</s>",
    ),
    (
        turns("a", "b", "c", "d", "e", "f"),
        "<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\nd</s>\n<|user|>\ne\n<|assistant|>\nf</s>",
        "b</s>d</s>f</s>",
    ),
    (
        turns("a", "b", "c", "d", "e", "f", system="s"),
        "<|system|>\ns\n<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\nd</s>\n<|user|>\ne\n<|assistant|>\nf</s>",
        "b</s>d</s>f</s>",
    ),
    (turns("a", "b", "c"), "<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n", "b</s>"),
    (turns(" a\n", "\n b "), "<|user|>\n a\n\n<|assistant|>\n\n b </s>", "\n b </s>"),
]


@pytest.mark.parametrize(("messages", "text", "labelled"), RENDERED)
def test_turns_are_rendered_and_labelled(
    characters: Any, messages: list[dict[str, str]], text: str, labelled: str
) -> None:
    assert characters.apply_chat_template(messages, tokenize=False) == text
    found = tokenise(characters, messages, ENOUGH)
    assert characters.decode(found.ids) == text
    assert said(characters, found) == labelled
    assert all(label in (IGNORED, token) for token, label in zip(found.ids, found.labels, strict=True))
    assert found.n_labels == len(labelled.replace("</s>", "."))


@pytest.mark.parametrize("messages", [row[0] for row in RENDERED])
def test_markers_change_no_id_and_transformers_finds_the_same_mask(
    characters: Any, messages: list[dict[str, str]]
) -> None:
    found = tokenise(characters, messages, ENOUGH)
    bare = characters.apply_chat_template(messages, chat_template=BARE, tokenize=True, return_dict=True)
    assert "generation" not in BARE.replace("add_generation_prompt", "")
    assert tuple(bare["input_ids"]) == found.ids
    theirs = characters.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert theirs["assistant_masks"] == [int(label != IGNORED) for label in found.labels]


def test_the_generation_prompt_is_the_header_of_an_answer(characters: Any) -> None:
    asked = characters.apply_chat_template(turns("a"), tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>\na\n<|assistant|>\n"


def test_a_role_that_the_template_does_not_know_is_refused(characters: Any) -> None:
    with pytest.raises(UsageError, match="no role tool in this template"):
        tokenise(characters, [{"role": "tool", "content": "1"}], ENOUGH)


def test_truncation_keeps_the_start_and_can_leave_nothing_to_learn(characters: Any) -> None:
    # <|user|> \n a b \n <|assistant|> \n c d </s>: ten tokens, the last three labelled.
    whole = tokenise(characters, turns("ab", "cd"), 10)
    assert (len(whole.ids), whole.n_labels, whole.truncated) == (10, 3, False)
    for length, n_labels in ((9, 2), (8, 1), (7, 0), (3, 0)):
        cut = tokenise(characters, turns("ab", "cd"), length)
        assert (cut.ids, cut.labels) == (whole.ids[:length], whole.labels[:length])
        assert (cut.n_labels, cut.truncated) == (n_labels, True)


def test_a_token_that_begins_in_the_header_has_no_loss(joining: Any) -> None:
    assert said(joining, tokenise(joining, turns("a", "b"), ENOUGH)) == "b</s>"
    # The break after the header and that of the content are one token, which no prompt of a user ends before.
    found = tokenise(joining, turns("a", "\nb"), ENOUGH)
    assert said(joining, found) == "b</s>"
    assert joining.decode(found.ids) == "<|user|>\na\n<|assistant|>\n\nb</s>"
    assert list(found.labels) == release_labels(joining, turns("a", "\nb"))[1]


# -- the release's way: every prefix is tokenised anew, and what lies in turns of others is masked --


def release_labels(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
    def ids(upto: int, prompt: bool = False) -> list[int]:
        rendered = tokenizer.apply_chat_template(
            messages[:upto], tokenize=True, return_dict=True, add_generation_prompt=prompt, chat_template=BARE
        )
        return list(rendered["input_ids"])

    whole = ids(len(messages))
    labels = list(whole)
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            start = len(ids(i)) if i else 0
            answered = i + 1 < len(messages) and messages[i + 1]["role"] == "assistant"
            end = len(ids(i + 1, answered))
            labels[start:end] = [IGNORED] * (end - start)
    return whole, labels


def real_conversations(shared_data: Path) -> list[list[dict[str, str]]]:
    folder = shared_data / "train" / "sft"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: no folder {folder}")
    chats = [row["messages"] for row in _lines(folder / "oasst1_en100.jsonl")]
    for row in _lines(folder / "alpaca_en_demo.jsonl")[:80]:
        asked = row["instruction"] + (f"\n\n{row['input']}" if row["input"].strip() else "")
        chats.append(turns(asked, row["output"], system="Be brief." if len(chats) % 2 else None))
    return [[{"role": m["role"], "content": m["content"]} for m in chat] for chat in chats]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("kind", ["characters", "words"])
def test_200_real_conversations_are_masked_as_by_the_release(
    kind: str, shared_data: Path, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(kind)
    chats = real_conversations(shared_data)
    assert len(chats) == 200
    assert sum(len(chat) > 2 for chat in chats) > 60
    for chat in chats:
        found = tokenise(tokenizer, chat, 10**9)
        assert (list(found.ids), list(found.labels)) == release_labels(tokenizer, chat)
        assert found.n_labels > 0


# -- pairs --


def test_a_pair_shares_its_prompt_and_the_header_of_its_answer(characters: Any) -> None:
    pair = tokenise_pair(characters, turns("q", "good"), turns("q", "gone"), ENOUGH, "last_turn")
    # Both answers begin with "go"; what they say is compared from its first token on.
    assert characters.decode(pair.prompt) == "<|user|>\nq\n<|assistant|>\n"
    assert characters.decode(pair.chosen) == "good</s>"
    assert characters.decode(pair.rejected) == "gone</s>"
    assert (pair.chosen_labels, pair.rejected_labels) == (pair.chosen, pair.rejected)
    assert set(pair.prompt_labels) == {IGNORED}
    assert (pair.n_tokens, pair.usable) == (6 + 5 + 5, True)


def test_all_assistant_compares_earlier_answers_too_and_last_turn_does_not(characters: Any) -> None:
    chosen, rejected = turns("q", "aa", "r", "bbb"), turns("q", "aa", "r", "c")
    last = tokenise_pair(characters, chosen, rejected, ENOUGH, "last_turn")
    every = tokenise_pair(characters, chosen, rejected, ENOUGH, "all_assistant")
    assert (last.prompt, last.chosen, last.rejected) == (every.prompt, every.chosen, every.rejected)
    counts = {
        kind: (pair.whole("chosen").n_labels, pair.whole("rejected").n_labels)
        for kind, pair in (("last", last), ("every", every))
    }
    # "bbb</s>" and "c</s>"; with "aa</s>" before each.
    assert counts == {"last": (4, 2), "every": (4 + 3, 2 + 3)}
    assert every.whole("chosen") == tokenise(characters, chosen, ENOUGH)
    assert every.whole("rejected") == tokenise(characters, rejected, ENOUGH)


def test_the_two_ways_agree_where_there_is_one_answer(characters: Any) -> None:
    sides = turns("q", "aa", system="s"), turns("q", "b", system="s")
    assert tokenise_pair(characters, *sides, ENOUGH, "last_turn") == tokenise_pair(
        characters, *sides, ENOUGH, "all_assistant"
    )


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (turns("q", "aa", "r", "b"), turns("q", "x", "r", "b")),  # part at the first answer
        (turns("q", "aa", "r", "b"), turns("q", "aa")),  # one ends earlier
        (turns("q", "aa", "r", "b"), turns("other", "aa", "r", "b")),  # no prompt in common but the header
        (turns("q", "aa", "rr", "b"), turns("q", "aa", "rs", "c")),  # part in what the user says
    ],
)
@pytest.mark.parametrize("max_length", [ENOUGH, 14])
def test_pairs_that_part_early_are_still_whole(
    characters: Any, chosen: list[dict[str, str]], rejected: list[dict[str, str]], max_length: int
) -> None:
    pair = tokenise_pair(characters, chosen, rejected, max_length, "all_assistant")
    assert pair.whole("chosen") == tokenise(characters, chosen, max_length)
    assert pair.whole("rejected") == tokenise(characters, rejected, max_length)


def test_each_side_is_cut_by_itself_and_a_pair_without_answer_is_unusable(characters: Any) -> None:
    # <|user|> \n q \n <|assistant|> \n are six tokens; the answers "abc</s>" and "d</s>".
    sides = turns("q", "abc"), turns("q", "d")
    pair = tokenise_pair(characters, *sides, 8, "last_turn")
    assert (len(pair.prompt), len(pair.chosen), len(pair.rejected)) == (6, 2, 2)
    assert (pair.chosen_truncated, pair.rejected_truncated, pair.usable) == (True, False, True)
    assert not tokenise_pair(characters, *sides, 6, "last_turn").usable
    assert not tokenise_pair(characters, *sides, 4, "last_turn").usable


def test_a_line_break_that_joins_the_header_is_no_part_of_the_shared_prompt(joining: Any) -> None:
    pair = tokenise_pair(joining, turns("q", "\nyes"), turns("q", "no"), ENOUGH, "last_turn")
    assert joining.decode(pair.prompt) == "<|user|>\nq\n<|assistant|>"
    assert (joining.decode(pair.chosen), joining.decode(pair.rejected)) == ("\n\nyes</s>", "\nno</s>")
    assert said(joining, pair.whole("chosen")) == "yes</s>"
    assert said(joining, pair.whole("rejected")) == "no</s>"


# -- templates and tokenizers that are refused --


def test_templates_by_name_and_by_file(tmp_path: Path) -> None:
    assert load_template("tulu", tmp_path) == TULU
    (tmp_path / "mine.jinja").write_text("{{ 1 }}")
    assert load_template(str(tmp_path / "mine.jinja"), tmp_path) == "{{ 1 }}"
    with pytest.raises(UsageError, match="no chat template 'tülu'; did you mean 'tulu'"):
        load_template("tülu", tmp_path)
    with pytest.raises(UsageError, match="has no chat template of its own"):
        load_template("own", tmp_path)


@pytest.mark.parametrize(
    "stored", ["{{ 2 }}", [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ 2 }}"}]]
)
def test_the_own_template_is_found_where_versions_of_transformers_keep_it(tmp_path: Path, stored: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stored}))
    assert load_template("own", tmp_path) == "{{ 2 }}"
    (tmp_path / "chat_template.jinja").write_text("{{ 3 }}")
    assert load_template("own", tmp_path) == "{{ 3 }}"


MARKED = "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}"
LOOP = "{% for m in messages %}"
ANSWER = "{% if m['role'] == 'assistant' %}"


def chatml(answer: str) -> str:
    """A template of another family whose answers are rendered so."""
    return LOOP + "{{ m['role'] }}: " + ANSWER + answer + "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (BARE, "no generation markers"),
        (chatml("{% generation %}{{ m['content'] }}{% endgeneration %}{{ eos_token }}"), "'</s>' outside"),
        (chatml("{{ m['content'] }}{% generation %}{{ eos_token }}{% endgeneration %}"), "as said by the assistant"),
        (chatml("{% if loop.last %}" + MARKED + "{% endif %}"), "marks 1 turns"),
        (LOOP + MARKED + "{% endfor %}", "marks 4 turns"),
        (chatml(MARKED.replace("m['content']", "messages[0]['content'] + m['content']")), "hold the user's words"),
    ],
)
def test_a_template_that_teaches_the_wrong_thing_is_refused(characters: Any, template: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        check_template(characters, template)
    assert "chat_template: tulu" in str(refused.value)


def test_other_templates_with_markers_are_accepted(characters: Any) -> None:
    check_template(characters, chatml("<|im_start|>" + MARKED.replace("eos_token", "eos_token + '\\n'")))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"eos_token": None}, "no end-of-text token"),
        ({"pad_token": "</s>"}, "pad_token and eos_token are both '</s>'"),
    ],
)
def test_a_tokenizer_that_cannot_teach_the_end_is_refused(
    tmp_path: Path, changed: dict[str, str | None], why: str
) -> None:
    _write_changed(tmp_path, changed)
    with pytest.raises(UsageError, match=why):
        load_tokenizer(tmp_path, "tulu")


def test_a_missing_pad_token_is_added(tmp_path: Path) -> None:
    _write_changed(tmp_path, {"pad_token": None})
    assert load_tokenizer(tmp_path, TULU).pad_token == "<pad>"


def _write_changed(folder: Path, changed: Mapping[str, str | None]) -> None:
    write_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
