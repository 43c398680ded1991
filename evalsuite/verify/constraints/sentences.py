"""Cuts text into sentences after the rules of punkt (Kiss & Strunk 2006), without its trained data.

Punkt decides at every `.`, `?` or `!` before white space or a bracket or quote: a known abbreviation does not end a
sentence, an initial ends it when no name follows, a number when no lower-case word follows, everything else does. What
its English model learned (when a word is capitalised) is stood in for by a list of words that open sentences. Traps,
kept because IFEval's number_sentences counts them: the "1." of a list is a sentence, so is what follows "e.g.".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

# The words that the published English model takes for abbreviations (as listed in nltk issue 2500): months, days,
# honorifics, firms and states; places, institutions and times; two initials; letters.
_ABBREVIATIONS = """
jan feb aug sep sept oct nov dec tues wed fri adm bros cie co col corp cos dr gen inc jr lt ltd maj messrs mr mrs ms
prof rep reps sen sr st ala ariz calif colo conn fla ga ill kan ky mich minn nev okla ore pa tenn va vt wash wis ave chg
ct ft mg ok ph.d sw vs yr
a.d a.m a.m.e c.i.t c.o.m.b c.v d.c i.m.s l.a m.b.a m.d.c n.c n.d n.h n.j n.m n.v n.y p.a.m p.m r.i s.a s.a.y s.c s.p.a
u.k u.n u.s u.s.a u.s.s.r w.va
a.a a.c a.g a.h a.s a.t b.f b.v d.h d.w e.f e.h e.l e.m f.g f.j g.d g.f g.k h.c h.f h.m j.b j.c j.j j.k j.p j.r l.f l.p
m.j r.a r.h r.j r.k r.t s.g s.s t.j w.c w.r w.w
c d e f g h k l m n p r s t v w
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())

# Words that are seldom capitalised inside a sentence: after "p.m." or "..." a capital on one of them opens a new one.
_OPENERS = """
a about above after again all also although among an and another any are as at be because been before being below
between both but by can could despite did do does during each either even every everyone few finally first for from
further had has have having he hence her here hers him his how however i if in indeed instead into is it its just last
later let like many may maybe me meanwhile might more moreover most much my neither never nevertheless next no nobody
none nor not nothing now of off often on once one only or other our out over perhaps please previously remember second
several shall she should similarly since so some someone something sometimes soon still such than that the their them
then there therefore these they third this those though through thus to today together tomorrow too two under
unfortunately unless until upon us use very was we well were what whatever when where whether which while who whose why
will with without would yes yesterday yet you your
"""
OPENERS = frozenset(_OPENERS.split())

# A token of punkt's, read off its behaviour: a run of dots or dashes; a word, which may begin with a quote but not go
# on over one ("isn't." is `isn` and `'t.`); any other mark by itself.
_MARKS = re.escape(")\";}]*:@'({[?!‘’“”«»")
_STOP = rf"[{_MARKS}]|--|\.\.|,(?=$|\s|[{_MARKS}]|--|\.\.)"
_TOKEN = re.compile(rf"-{{2,}}|\.{{2,}}|[^\s(\"`{{\[:;&#*@)}}\]\-,](?:(?!{_STOP})\S)*|\S")
_ENDING = re.compile(rf"[.?!](?=[{_MARKS}]|$)")
_CLOSERS = re.compile(r"\s*[\"')\]}‘’“”«»]+(?=\s|--|$)\s*", re.MULTILINE)
# The look-behind keeps this linear: without it a long word without a mark would be tried from each of its letters.
_CHUNK = re.compile(r"(?<!\S)[^\s.?!]*[.?!]\S*")
_NEXT_CHUNK = re.compile(r"\s*(\S+)")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*$")


def split_sentences(text: str) -> list[str]:
    """The sentences of `text` with their closing quotes and brackets; blank text has none."""
    found: list[str] = []
    start = 0
    for end in _breaks(text):
        if end > start:  # a closing bracket may already have carried the sentence past this mark
            closers = _CLOSERS.match(text, end)
            cut = closers.end() if closers else end
            found.append(text[start:cut].strip())
            start = cut
    tail = text[start:].strip()
    return [*found, tail] if tail else found


def _breaks(text: str) -> Iterator[int]:
    """Where sentences end, just after the mark: as a rule at most once in a run of text without white space."""
    for chunk in _CHUNK.finditer(text):
        behind = _NEXT_CHUNK.match(text, chunk.end())
        start = chunk.start()
        for offset in _breaks_of(chunk[0], behind[1] if behind else ""):
            yield start + offset


# Remembered, because a degenerate response repeats itself: a megabyte of ". " would take seconds otherwise.
@lru_cache(maxsize=1024)
def _breaks_of(chunk: str, behind: str) -> tuple[int, ...]:
    """Offsets just after the marks that end a sentence in a run of text; `behind` is the run that follows, if any."""
    marks = [mark.end() for mark in _ENDING.finditer(chunk)]
    if marks and not behind and marks[-1] == len(chunk):
        marks.pop()  # nothing follows it; so "Yes!!" at the end of a text is two sentences, as in punkt
    if not marks:
        return ()
    last = marks[-1]
    # Punkt overlooks that the marks of "wow !! so" stand together.
    found = [1] if marks[0] == 1 < last else []
    follows = chunk[last : last + 1] or behind
    if _ends(_TOKEN.findall(chunk[:last]) + _TOKEN.findall(follows)):
        found.append(last)
    return tuple(found)


def _ends(tokens: list[str]) -> bool:
    """Does a sentence end before the last of these tokens? They reach from a word with a mark to the word behind it.

    That is punkt's question too, and so an odd case is the same: "U.S. (e.g.," ends a sentence after "U.S.".
    """
    return any(_is_end(token, after) for token, after in pairwise(tokens))


def _is_end(token: str, after: str) -> bool:
    if token in (".", "?", "!"):
        return True
    if not token.endswith("."):
        return False
    opener = after[0].isupper() and after.rstrip(".").lower() in OPENERS
    if token.endswith(".."):
        return opener
    word = token[:-1].lower()
    initial = len(word) == 1 and word.isalpha()
    if word in ABBREVIATIONS or word.rpartition("-")[2] in ABBREVIATIONS:
        return opener and not initial
    if initial or _NUMBER.match(word):
        return not (after[0].islower() or after in ";:,.!?" or (initial and after[0].isupper() and not opener))
    return True
