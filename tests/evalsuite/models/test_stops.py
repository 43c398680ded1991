"""Stop strings, special tokens, cut characters and thinking: what is scored, from any engine's tokens or text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.models.stops import Ending, StopWatch, Thinking, finish_text, finish_thinking, finish_tokens

EOS, BOS, USER = "</s>", "<s>", "<|user|>"
SPECIAL = (EOS, BOS, USER)


class Pieces:
    """A decoder whose tokens are byte strings, numbered as they are met; the first three are special."""

    eos_ids = frozenset({0})
    eos_text = EOS
    special_ids = frozenset({0, 1, 2})
    special_texts = SPECIAL

    def __init__(self) -> None:
        self.pieces = [text.encode() for text in SPECIAL]
        self.n_decoded = 0

    def ids(self, *pieces: str | bytes | int) -> list[int]:
        """An int is a special token's id; anything else a new ordinary token with that text."""
        found = []
        for piece in pieces:
            if not isinstance(piece, int):
                self.pieces.append(piece.encode() if isinstance(piece, str) else piece)
            found.append(piece if isinstance(piece, int) else len(self.pieces) - 1)
        return found

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        self.n_decoded += len(ids)
        kept = [i for i in ids if not (skip_special and i in self.special_ids)]
        return b"".join(self.pieces[i] for i in kept).decode("utf-8", errors="replace")


def watch(decoder: Any, ids: Sequence[int], stops: Sequence[str], thinking: Thinking | None = None) -> StopWatch:
    """A watch fed until it says stop, as an engine would."""
    found = StopWatch(decoder, stops, thinking)
    for token in ids:
        if found.push(token):
            break
    return found


CASES: list[tuple[str, tuple[str | bytes | int, ...], tuple[str, ...], str, str, int]] = [
    # what, tokens, stops, text, finish, tokens used
    ("nothing to stop at", ("a", "b"), (), "ab", "length", 2),
    ("no token at all", (), ("x",), "", "length", 0),
    ("an empty stop string stops nothing", ("a", "b"), ("",), "ab", "length", 2),
    ("the end token", ("a", 0, "b"), (), "a", "stop", 2),
    ("the end token first", (0, "b"), (), "", "stop", 1),
    ("the end token as the last allowed one", ("a", "b", 0), (), "ab", "stop", 3),
    ("the end token's text spelled by ordinary tokens", ("a", "</", "s", ">", "b"), (), "a", "stop", 4),
    ("a stop that is one token", ("a", "\n", "b"), ("\n",), "a", "stop", 2),
    ("a stop inside a token", ("one", "two\n\nthree", "x"), ("\n\n",), "onetwo", "stop", 2),
    ("a stop at the start of a token", ("one", "\n\nthree"), ("\n\n",), "one", "stop", 2),
    ("a stop at the very start", ("\n", "a"), ("\n",), "", "stop", 1),
    ("a stop over two tokens", ("a\n", "\nb", "c"), ("\n\n",), "a", "stop", 2),
    ("a stop over five tokens", ("Q", "ues", "ti", "o", "n:", "x"), ("Question:",), "", "stop", 5),
    ("a stop over five tokens after text", ("so ", "Q", "ues", "ti", "o", "n: x"), ("Question:",), "so ", "stop", 6),
    ("a stop of many one-letter tokens", tuple("abcEND OF TEXTxyz"), ("END OF TEXT",), "abc", "stop", 14),
    ("a stop on the last allowed token", ("a", "b", "STOP"), ("STOP",), "ab", "stop", 3),
    ("a stop begun but not finished", ("a", "STO"), ("STOP",), "aSTO", "length", 2),
    ("a false start before the stop", ("S", "TST", "OP"), ("STOP",), "ST", "stop", 3),
    ("a stop that overlaps itself", ("a", "a", "a", "b"), ("aa",), "", "stop", 2),
    ("two stops, the later in the list comes first", ("x", "B", "A"), ("A", "B"), "x", "stop", 2),
    ("two stops in one token: the earlier one cuts", ("xB then A",), ("A", "B"), "x", "stop", 1),
    ("one stop inside another, in one token", ("x[END]y",), ("END", "[END]"), "x", "stop", 1),
    ("one stop a prefix of another", ("x", "ab", "c"), ("abc", "ab"), "x", "stop", 2),
    ("a stop twice in one token", ("x.y.z",), (".",), "x", "stop", 1),
    ("the same stop given twice", ("x", "."), (".", "."), "x", "stop", 2),
    ("a special token as a stop string", ("a", 2, "b"), (USER,), "a", "stop", 2),
    ("a special token that is no stop is left out", ("a", 2, "b"), (), "ab", "length", 3),
    ("special tokens before a stop are left out", (1, "a", 2, "b", "."), (".",), "ab", "stop", 5),
    ("special tokens and a stop inside a token", (1, "a", 2, "b.c"), (".",), "ab", "stop", 4),
    ("a stop that a special token interrupts is none", ("ST", 2, "OP", "x"), ("STOP",), "STOPx", "length", 4),
    ("a stop reaching into a special token's text", ("a\n", 2, "b"), ("\n<|user",), "a", "stop", 2),
    ("a tag spelled by ordinary tokens stays", ("<", "s", ">", "hi"), (), "<s>hi", "length", 4),
    ("and stays beside the real one", ("<s", ">", 1, "hi", 0), (), "<s>hi", "stop", 5),
    ("a character over two tokens", ("caf", b"\xc3", b"\xa9", "!"), (), "café!", "length", 4),
    ("a character over four tokens", (b"\xf0", b"\x9f", b"\x99", b"\x82", "x"), (), "🙂x", "length", 5),
    ("a stop that is a character over three tokens", ("a", b"\xe3", b"\x80", b"\x82", "b"), ("。",), "a", "stop", 4),
    ("a stop behind a cut character", (b"\xe3\x80", b"\x82.", "x"), (".",), "。", "stop", 2),
    ("bytes that are no text, then a stop", (b"\xff", b"\xff", b"\xff", b"\xff", ".", "x"), (".",), "����", "stop", 5),
    ("a text that ends inside a character", ("a", b"\xe3\x80"), (".",), "a�", "length", 2),
    ("a stop behind a run of broken bytes", tuple([b"\xe3"] * 9 + ["END"]), ("END",), "�" * 9, "stop", 10),
    ("only white space before the stop", ("  ", "\n"), ("\n",), "  ", "stop", 2),
    ("a prefill that ended in a newline leaves no trace", ("42", "\n\n"), ("\n\n",), "42", "stop", 2),
    ("newlines doubled over tokens", ("a", "\n", "\n", "b"), ("\n\n",), "a", "stop", 3),
    ("capital letters matter", ("a", "stop", "STOP"), ("STOP",), "astop", "stop", 3),
    ("a carriage return", ("a\r", "\nb"), ("\r\n",), "a", "stop", 2),
    ("NUL and control characters", ("a\x00", "\x1b[0m", "b"), ("\x1b[",), "a\x00", "stop", 2),
]


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "finish", "used"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_table_of_endings(
    pieces: tuple[str | bytes | int, ...], stops: tuple[str, ...], text: str, finish: str, used: int
) -> None:
    decoder = Pieces()
    ids = decoder.ids(*pieces)
    seen = watch(decoder, ids, stops)
    assert (seen.ending().text, seen.ending().finish, len(seen.ids)) == (text, finish, used)
    assert finish_tokens(decoder, ids[:used], stops) == seen.ending()  # an engine that checks afterwards
    if not any("spelled" in what or "stays" in what for what, *case in CASES if case[0] == pieces):
        whole = decoder.decode(ids[:used], skip_special=False)
        assert finish_text(whole, stops, EOS, SPECIAL) == (text, finish == "stop")


def test_there_are_at_least_forty_cases() -> None:
    assert len(CASES) >= 40


def test_text_alone_takes_a_spelled_special_token_for_a_real_one() -> None:
    assert finish_text("<s>hi", (), EOS, SPECIAL) == ("hi", False)


def test_what_closes_up_around_a_removed_special_token_stays() -> None:
    assert finish_text("<</s>s>x", (), "", SPECIAL) == ("<s>x", False)


def test_a_long_answer_costs_a_time_linear_in_its_length() -> None:
    decoder = Pieces()
    ids = decoder.ids(*["word "] * 20_000)
    seen = StopWatch(decoder, ("END OF IT", "\n\n", "Question:"))
    before = time.process_time()
    assert not any(seen.push(token) for token in ids)
    assert time.process_time() - before < 2
    assert decoder.n_decoded < 4 * len(ids)  # the token, and the one before it twice


def test_a_run_of_broken_bytes_costs_no_more() -> None:
    decoder = Pieces()
    ids = decoder.ids(*[b"\xff"] * 5_000)
    seen = StopWatch(decoder, ("END",))
    assert not any(seen.push(token) for token in ids)
    assert decoder.n_decoded < 12 * len(ids)


def test_a_megabyte_is_cut_and_freed_of_special_tokens_at_once() -> None:
    before = time.process_time()
    text, stopped = finish_text(("x" * 99 + BOS) * 10_000 + "END", ("END",), EOS, SPECIAL)
    assert (len(text), stopped) == (990_000, True)
    assert time.process_time() - before < 1


THINK = Thinking("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "ended", "opened", "expected"),
    [
        ("<think>so\n\nit is</think>\n\n 42", True, False, Ending("42", "stop", "so\n\nit is")),
        ("so it is</think>42", True, True, Ending("42", "stop", "so it is")),
        ("<think>a</think>b<think>c</think>d", True, False, Ending("d", "stop", "a</think>b<think>c")),
        ("<think>never done", False, False, Ending("", "length", "never done")),
        ("<think>never done", True, False, Ending("", "length", "never done")),
        ("never done", False, True, Ending("", "length", "never done")),
        ("never opened, ended by itself", True, False, Ending("never opened, ended by itself", "stop")),
        ("<think>a</think>4\n\nQuestion", False, False, Ending("4", "stop", "a")),
        ("<think>a\n\nb</think>4", False, False, Ending("4", "length", "a\n\nb")),
        ("<think>a</think>", True, False, Ending("", "stop", "a")),
        ("<think>a</think><|user|>4</s>", True, False, Ending("4", "stop", "a")),
    ],
)
def test_thinking_is_split_off_and_stops_count_only_behind_it(
    text: str, ended: bool, opened: bool, expected: Ending
) -> None:
    assert finish_thinking(text, THINK, ("\n\n",), EOS, SPECIAL, ended=ended, opened=opened) == expected


def test_a_watch_with_thinking_does_not_stop_at_a_stop_string_that_is_thought() -> None:
    decoder = Pieces()
    ids = decoder.ids("<think>", "a\n\n", "b", "</think>", "42", "\n\n", "x", 0)
    seen = watch(decoder, ids, ("\n\n",), THINK)
    assert len(seen.ids) == len(ids)
    assert seen.ending() == Ending("42", "stop", "a\n\nb")


@pytest.fixture(scope="module")
def byte_fallback() -> Any:
    """A decoder as Llama 2 has it: a leading space is stripped, unknown characters are byte tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    words = ["<unk>", "▁a", "▁the", "b", ".", "\n", "END"] + [f"<0x{i:02X}>" for i in range(256)]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(EOS, special=True), AddedToken(USER, special=True)])

    class Fallback:
        eos_ids = frozenset({tokenizer.token_to_id(EOS)})
        eos_text = EOS
        special_ids = frozenset(tokenizer.token_to_id(text) for text in (EOS, USER))
        special_texts = (EOS, USER)
        size = tokenizer.get_vocab_size()

        def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
            return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    return Fallback()


@pytest.fixture(scope="module")
def byte_level(tiny_checkpoint: Path) -> Any:
    from evalsuite.models.encoding import Encoder

    return Encoder.from_checkpoint(tiny_checkpoint)


def _agrees(decoder: Any, ids: list[int], stops: tuple[str, ...]) -> None:
    """The watch stops at the first token after which the whole text holds a stop, however tokens were cut."""
    seen = watch(decoder, ids, stops)

    def over(n: int) -> bool:
        return n > 0 and finish_tokens(decoder, ids[:n], stops).finish == "stop"

    first = next((n for n in range(len(ids) + 1) if over(n)), None)
    if first is None:
        assert len(seen.ids) == len(ids)
        assert seen.ending().finish == "length"
    else:
        assert len(seen.ids) == first
    if not any(i in decoder.special_ids for i in ids):  # one inside a stop string keeps it from being one
        assert not any(stop in seen.ending().text for stop in stops)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_watch_stops_where_a_search_of_the_whole_text_would_with_byte_level_tokens(
    byte_level: Any, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 1023)), max_size=30))
    text = byte_level.decode([i for i in ids if i > 5], skip_special=False)
    _agrees(byte_level, ids, _some_stops(data, text))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_watch_stops_where_a_search_of_the_whole_text_would_with_words_and_spaces(
    byte_fallback: Any, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(1, 6), max_size=30))
    _agrees(byte_fallback, ids, _some_stops(data, byte_fallback.decode(ids, skip_special=False)))


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(1, 264), max_size=30))
def test_byte_tokens_that_turn_out_to_be_no_text_leave_no_stop_in_the_answer(
    byte_fallback: Any, ids: list[int]
) -> None:
    seen = watch(byte_fallback, ids, ("END", "a.", "é"))
    assert not any(stop in seen.ending().text for stop in ("END", "a.", "é"))


def _some_stops(data: st.DataObject, text: str) -> tuple[str, ...]:
    """Pieces of the text, so that stops do occur, and one that hardly will. Broken characters are no stop strings."""
    clean = [piece for piece in text.split("\ufffd") if piece]
    stops = ["zzz"]
    if clean and data.draw(st.booleans()):
        piece = data.draw(st.sampled_from(clean))
        start = data.draw(st.integers(0, len(piece) - 1))
        stops.append(piece[start : start + data.draw(st.integers(1, 6))])
    return tuple(stops)
