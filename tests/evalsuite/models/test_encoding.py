"""Encoding: token-equal to lm-eval's own code, batched, deaf to what a tokenizer file stores about truncation."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import CheckpointError
from evalsuite.models.encoding import EncodedDoc, Encoder, bos_source, encode_documents, encode_options, model_window
from evalsuite.models.tokens import PLAIN_MODEL_TYPES, PythonTokens, load_tokens
from evalsuite.types import Failed, LoglikRequest, Prompt
from tests.tiny import library_files, make_tokenizer, words

KINDS = ("plain", "bos", "merging", "prefix_space", "no_bos_token")


def edit(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content.pop(key, None) if value is None else content.update({key: value})
    path.write_text(json.dumps(content))


def make_kind(folder: Path, kind: str) -> Path:
    """A tokenizer folder: `bos` adds <s> to plain text, `merging` has tokens that span words, spaces and newlines."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    make_tokenizer(folder, 600)
    edit(folder / "tokenizer_config.json", model_max_length=None)
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    if kind == "merging":  # no splitting into words: merges run over every boundary
        tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
        tokenizer.decoder = decoders.Fuse()
        specials = ["<pad>", "<s>", "</s>", "<unk>"]
        lines = [line for path in library_files()[:8] for line in path.read_text(encoding="utf-8").split("\n\n")]
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=specials, show_progress=False)
        tokenizer.train_from_iterator(lines[:400], trainer)
    if kind == "prefix_space":  # as sentencepiece does: a space before the text and for every space a visible mark
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(" "), normalizers.Replace("  ", " ")])
    if kind in ("bos", "merging"):
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    if kind == "no_bos_token":
        edit(folder / "tokenizer_config.json", bos_token=None)
    tokenizer.pre_tokenizer = tokenizer.pre_tokenizer or pre_tokenizers.Sequence([])
    tokenizer.save(file)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kind(tmp_path_factory.mktemp(request.param) / "tok", request.param)


def adversarial_pairs(n: int) -> list[tuple[str, str]]:
    """Contexts and options that end, begin, or consist of what tokenizers stumble over."""
    rng, vocabulary = words(11)
    whites = ["", "", "", " ", "  ", "\n", "\n\n", "\t", " \n ", "\u00a0", "\u3000", "\r\n", "\x85", "\x1c"]
    odd = [
        "</s>",
        "<s>",
        "<s",
        ">",
        "<|user|>",
        "🙂",
        "👩\u200d",
        "\u200d👧",
        "é",
        "e\u0301",
        "漢字",
        "\x00",
        "\ufffd",
        "def",
        "1",
    ]
    odd += ["don'", "t", "_", "()", "=", "..", "\u0301", "ﬁ", "A"]

    def piece() -> str:
        return rng.choice([rng.choice(vocabulary), rng.choice(vocabulary), rng.choice(odd)])

    def text(most: int) -> str:
        body = "".join(piece() + rng.choice([*whites, " ", " "]) for _ in range(rng.randint(0, most)))
        return rng.choice(whites) + (body if rng.random() < 0.5 else body.rstrip()) + rng.choice(whites)

    pairs = [
        ("", "a"),
        ("", "<s>a"),
        ("", "<s>"),
        ("", ""),
        (" ", "a"),
        ("\n", ""),
        ("<s>a", "b"),
        ("a", ""),
        ("<", "s> b"),
    ]
    pairs += [
        ("", "</s> x"),
        ("def ", "f"),
        ("im", "port os"),
        ("x", " "),
        ("a \n", "\n b"),
        ("<s>", "<s>"),
        ("👩", "\u200d👧"),
    ]
    return pairs + [(text(8), text(3)) for _ in range(n - len(pairs))]


def lm_eval_splits(folder: Path, pairs: list[tuple[str, str]]) -> list[EncodedDoc | None]:
    """What lm-eval's own `loglikelihood` hands to its engine for each pair; None where it cannot score that."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    lm = HFLM.__new__(HFLM)  # only its encoding is wanted: no model
    lm.tokenizer = AutoTokenizer.from_pretrained(folder)
    lm.backend, lm.add_bos_token, lm.custom_prefix_token_id, lm.enable_thinking = "causal", None, None, False
    lm._loglikelihood_tokens = lambda requests, **_: requests
    found: list[EncodedDoc | None] = []
    for index, pair in enumerate(pairs):
        try:
            ((_, context, option),) = lm.loglikelihood([Instance("loglikelihood", {}, pair, index)], disable_tqdm=True)
        except IndexError:  # an empty context with an option of no tokens
            found.append(None)
            continue
        found.append(EncodedDoc(tuple(context), (tuple(option),)) if context and option else None)
    return found


def ours(encoder: Encoder, pair: tuple[str, str]) -> EncodedDoc | None:
    try:
        return encode_options(encoder, Prompt(pair[0]), [pair[1]])
    except ValueError:
        return None


def test_five_hundred_adversarial_pairs_split_as_lm_eval_splits_them(folder: Path) -> None:
    pairs = adversarial_pairs(500)
    encoder = Encoder.from_checkpoint(folder)
    theirs = lm_eval_splits(folder, pairs)
    differing = [(p, ours(encoder, p), t) for p, t in zip(pairs, theirs, strict=True) if ours(encoder, p) != t]
    assert differing == []
    assert sum(t is not None for t in theirs) > 400  # the comparison is about real splits, not about refusals


def test_pairs_include_merges_across_the_boundary(tmp_path: Path) -> None:
    """context + option is then not the encoding of the whole, and is not repaired."""
    encoder = Encoder.from_checkpoint(make_kind(tmp_path / "tok", "merging"))
    crossing = 0
    for context, option in adversarial_pairs(500):
        doc = ours(encoder, (context, option))
        if doc is not None and context:
            crossing += list(doc.context_ids + doc.option_ids[0]) != encoder.encode(context + option, chat=False)
    assert crossing >= 20


def test_a_batch_of_documents_equals_one_by_one(folder: Path) -> None:
    encoder = Encoder.from_checkpoint(folder)
    rng = random.Random(3)
    options = [option for _, option in adversarial_pairs(300)]
    requests = [
        LoglikRequest(Prompt(context, chat=rng.random() < 0.4), tuple(rng.sample(options, rng.randint(1, 4))))
        for context, _ in adversarial_pairs(300)
    ]
    expected: list[EncodedDoc | str] = []
    for request in requests:
        try:
            expected.append(encode_options(encoder, request.context, request.options))
        except ValueError as error:
            expected.append(str(error))
    assert [e.why if isinstance(e, Failed) else e for e in encode_documents(encoder, requests)] == expected
    assert any(isinstance(e, str) for e in expected)
    assert any(not isinstance(e, str) for e in expected)


def test_small_chunks_give_the_same_documents(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.from_checkpoint(tiny_checkpoint)
    requests = [LoglikRequest(Prompt(f"Question {i}\nAnswer:"), (" A", " B", f" {i}")) for i in range(50)]
    at_once = encode_documents(encoder, requests)
    monkeypatch.setattr("evalsuite.models.encoding.CHUNK_STRINGS", 7)
    assert encode_documents(encoder, requests) == at_once
    monkeypatch.setattr("evalsuite.models.encoding.CHUNK_CHARACTERS", 1)
    assert encode_documents(encoder, requests) == at_once
    assert encode_documents(encoder, []) == []


def test_an_option_without_tokens_fails_its_document_and_is_named(tiny_checkpoint: Path) -> None:
    encoder = Encoder.from_checkpoint(tiny_checkpoint)
    good = LoglikRequest(Prompt("Q:"), (" a", " b"))
    failed, fine = encode_documents(encoder, [LoglikRequest(Prompt("Q:"), (" a", "", " c")), good])
    assert failed == Failed("option 2 of 3 ('') has no tokens of its own")
    assert isinstance(fine, EncodedDoc)


def test_a_context_of_white_space_alone_is_a_failed_document(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="only white space"):
        encode_options(Encoder.from_checkpoint(tiny_checkpoint), Prompt(" \n"), ["a"])


def test_without_bos_and_eos_an_empty_context_is_a_failed_document(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    edit(tmp_path / "tokenizer_config.json", bos_token=None, eos_token=None)
    encoder = Encoder.from_checkpoint(tmp_path)
    assert encoder.prefix_id is None
    assert (encoder.eos_ids, encoder.eos_text, encoder.bos_text) == (frozenset(), "", "")
    with pytest.raises(ValueError, match="neither BOS nor EOS"):
        encode_options(encoder, Prompt(""), ["a"])


def test_a_chat_context_moves_its_newline_to_every_option(tiny_checkpoint: Path) -> None:
    encoder = Encoder.from_checkpoint(tiny_checkpoint)
    doc = encode_options(encoder, Prompt("<|user|>\nhi\n<|assistant|>\n", chat=True), ["A", "B"])
    assert doc.context_ids == tuple(encoder.encode("<|user|>\nhi\n<|assistant|>", chat=True))
    newline = encoder.encode("\n", chat=True)
    assert [list(o) for o in doc.option_ids] == [newline + encoder.encode(letter, chat=True) for letter in "AB"]


def test_bos_is_added_to_plain_text_once_and_never_to_chat_text(tmp_path: Path) -> None:
    encoder = Encoder.from_checkpoint(make_kind(tmp_path / "tok", "bos"))
    bare = encoder.encode("hello", chat=True)
    assert encoder.adds_bos
    assert encoder.encode("hello", chat=False) == [1, *bare]
    assert encoder.encode("<s>hello", chat=False) == [1, *bare]  # it brings its own
    assert encoder.encode("<s>hello", chat=True) == [1, *bare]
    # In one batch, decided per string, in order.
    rows = encoder.encode_batch(["hello", "<s>hello", "hello", "<s>"], chat=False)
    assert rows == [[1, *bare], [1, *bare], [1, *bare], [1]]


def test_who_printed_the_bos_is_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    adding, plain = (
        Encoder.from_checkpoint(make_kind(tmp_path / "tok", "bos")),
        Encoder.from_checkpoint(tiny_checkpoint),
    )
    assert bos_source(adding, Prompt("hello")) == "tokenizer"
    assert bos_source(adding, Prompt("hello", chat=True)) == "none"
    assert bos_source(adding, Prompt("<s>hello", chat=True)) == "template"
    assert bos_source(adding, Prompt("<s>hello")) == "template"
    assert bos_source(adding, Prompt("<s><s>hello", chat=True)) == "twice"
    assert bos_source(plain, Prompt("hello")) == "none"


def test_a_tokenizer_that_adds_nothing_says_so(tiny_checkpoint: Path) -> None:
    encoder = Encoder.from_checkpoint(tiny_checkpoint)
    assert not encoder.adds_bos
    assert encoder.encode("", chat=False) == []
    assert encoder.encode_batch([], chat=False) == []


def test_stored_truncation_and_padding_are_switched_off(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    plain = Encoder.from_checkpoint(tmp_path)
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    texts = ["a", "the quick brown fox jumps over the lazy dog " * 3]
    assert Encoder.from_checkpoint(tmp_path).encode_batch(texts, chat=False) == plain.encode_batch(texts, chat=False)


@pytest.mark.parametrize("through_transformers", [False, True])
def test_lone_surrogates_are_encoded_as_replacement_characters(tmp_path: Path, through_transformers: bool) -> None:
    make_tokenizer(tmp_path)
    if through_transformers:
        edit(tmp_path / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    encoder = Encoder.from_checkpoint(tmp_path)
    assert bool(encoder.why_transformers) is through_transformers
    for chat in (False, True):
        broken = encoder.encode_batch(["ok", "a\ud800b", "\udfff\udc00"], chat=chat)
        assert broken == encoder.encode_batch(["ok", "a\ufffdb", "\ufffd\ufffd"], chat=chat)


def test_special_tokens_are_known_by_id_and_text(tiny_checkpoint: Path) -> None:
    encoder = Encoder.from_checkpoint(tiny_checkpoint)
    assert (encoder.bos_text, encoder.eos_text, encoder.prefix_id, encoder.vocab_size) == ("<s>", "</s>", 1, 1024)
    assert encoder.special_ids == frozenset(range(6))
    assert encoder.special_texts[0] == "<|assistant|>"  # longest first
    assert set(encoder.special_texts) == {"<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"}
    ids = encoder.encode("<|user|>\nhello</s>", chat=True)
    assert encoder.decode(ids, skip_special=False) == "<|user|>\nhello</s>"
    assert encoder.decode(ids, skip_special=True) == "\nhello"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [([2, 4], {2, 4}), (5, {2, 5}), (None, {2}), ("absent", {2, 3})],
)
def test_generation_config_adds_its_end_of_sequence_ids(tmp_path: Path, stored: Any, expected: set[int]) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 3}))
    if stored != "absent":  # without that file transformers takes config.json's
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stored}))
    assert Encoder.from_checkpoint(tmp_path).eos_ids == expected


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({"max_position_embeddings": 512}, {"model_max_length": 128}, 512),
        ({"n_positions": 64, "max_position_embeddings": 512}, {}, 64),
        ({"n_ctx": 99}, {}, 99),
        ({"max_position_embeddings": 512, "text_config": {"max_position_embeddings": 4096}}, {}, 4096),
        ({"n_positions": None, "max_position_embeddings": 7}, {}, 7),
        ({}, {"model_max_length": 300}, 300),
        ({}, {"model_max_length": int(1e30)}, 2048),
        ({}, {}, 2048),
    ],
)
def test_the_window_is_read_as_lm_eval_reads_it(tmp_path: Path, config: Any, tokenizer: Any, expected: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert model_window(tmp_path) == expected


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("", {"tokenizer_class": "TokenizersBackend"}),
    ("", {"add_bos_token": False}),
    ("", {"clean_up_tokenization_spaces": True}),
    ("", {"additional_special_tokens": ["<|user|>"], "unk_token": "<pad>"}),
    ("add_bos_token", {"add_bos_token": True}),
    ("add_eos_token", {"add_eos_token": True}),
    ("tokenizer_class 'GPT2Tokenizer'", {"tokenizer_class": "GPT2Tokenizer"}),
    ("tokenizer_class None", {"tokenizer_class": None}),
    ("split_special_tokens", {"split_special_tokens": True}),
    ("special token '<|end|>'", {"eos_token": "<|end|>"}),
    ("special token 'def'", {"extra_special_tokens": ["def"]}),
    ("special token '<img>'", {"image_token": "<img>"}),
    ("special token '<x>'", {"added_tokens_decoder": {"1": {"content": "<x>", "special": False}}}),
    ("other flags", {"added_tokens_decoder": {"2": {"content": "</s>", "lstrip": True, "special": True}}}),
]
TEXTS = ["hello world </s> def x<|user|> y", " lead", "", "<s>start", "<|end|> a<img>", "é🙂 ' . n't"]


@pytest.mark.parametrize(("why", "change"), CHANGES)
def test_both_paths_give_the_ids_and_text_of_transformers(tmp_path: Path, why: str, change: dict[str, Any]) -> None:
    """tokenizer.json alone where it is enough, and AutoTokenizer where tokenizer_config.json changes the encoding."""
    from transformers import AutoTokenizer

    make_tokenizer(tmp_path, 600)
    edit(tmp_path / "tokenizer_config.json", **change)
    encoder = Encoder.from_checkpoint(tmp_path)
    assert why in encoder.why_transformers
    assert bool(encoder.why_transformers) is bool(why)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = encoder.encode(text, chat=True)
        assert ids == peer.encode(text, add_special_tokens=False)
        if not text.startswith("<s>"):
            assert encoder.encode(text, chat=False) == peer.encode(text)
        for skip in (False, True):
            assert encoder.decode(ids, skip_special=skip) == peer.decode(ids, skip_special_tokens=skip)
    assert (encoder.eos_id, encoder.bos_id) == (peer.eos_token_id, peer.bos_token_id)
    assert encoder.vocab_size == len(peer)


@pytest.mark.parametrize("kind", sorted(PLAIN_MODEL_TYPES))
def test_transformers_takes_tokenizer_json_as_it_is_for_these_model_types(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    make_tokenizer(tmp_path, 600)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    for name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        edit(tmp_path / "tokenizer_config.json", tokenizer_class=name)
        assert load_tokens(tmp_path).why_transformers == ""
        assert type(AutoTokenizer.from_pretrained(tmp_path)).__name__ == "TokenizersBackend"


def test_a_model_type_with_its_own_tokenizer_goes_through_transformers(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, 600)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert "qwen2" in Encoder.from_checkpoint(tmp_path).why_transformers


def test_a_tokenizer_in_python_encodes_and_decodes(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    loaded = load_tokens(tmp_path)
    assert isinstance(loaded.tokens, PythonTokens)
    assert loaded.why_transformers == "there is no tokenizer.json"
    encoder = Encoder(loaded)
    ids = encoder.encode("abc", chat=True)
    assert encoder.decode(ids, skip_special=True) == "abc"
    assert encoder.encode("abc", chat=False) == [*ids, encoder.eos_id]


def test_no_tokenizer_and_a_broken_one_are_checkpoint_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer can be loaded"):
        Encoder.from_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the tokenizer cannot be read"):
        Encoder.from_checkpoint(tmp_path)


def test_code_in_a_tokenizer_folder_is_not_run(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    edit(tmp_path / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "mine.Mine"]}, tokenizer_class="Mine")
    with pytest.raises(CheckpointError, match=r"code of its own.*--trust-remote-code"):
        Encoder.from_checkpoint(tmp_path)


def test_the_fast_path_imports_neither_torch_nor_transformers(tiny_checkpoint: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evalsuite.models.encoding import Encoder; "
        "from evalsuite.models.chat import ChatTemplate; f = Path(sys.argv[1]); "
        "ChatTemplate.from_checkpoint(f).render([dict(role='user', content='x')]); "
        "assert Encoder.from_checkpoint(f).encode('hello', chat=False); "
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tiny_checkpoint)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
