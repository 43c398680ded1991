"""Tells whether a text opens with an English verb: the fall-back where nltk's tagger data are absent.

Only the first word is judged, with the second as a hint: a word that is a noun as well ("run") counts as a verb when
an article, a pronoun or the like follows ("Run the test", but not "Run fast", which the tagger calls a noun too).
Modal verbs do not count: the tagger's name for them holds no "VB".
"""

from __future__ import annotations

import re

_BASE = """
abandon absorb accelerate accept accommodate accompany accomplish accord accumulate accuse achieve acknowledge acquire
activate adapt add adhere adjust administer admire admit adopt adorn advertise advise afford agree alert align allocate
allow alter amplify analyse analyze announce anticipate apologise apologize appear apply appoint appreciate approve
argue arise arrange arrive articulate ascertain ask assemble assert assess assign assist assume assure attach attain
attend attract authorize automate avoid await bake bathe be beat become beg begin behave believe belong borrow bring
broaden browse build bury buy calculate calibrate carry celebrate chew choose chop cite clarify classify cling close
collaborate collect combine come commence commend communicate commute compare compel compete compile complain complete
comply compose comprehend compute conceal concentrate conclude condense conduct configure confirm confront confuse
connect consider consist consolidate construct consult consume contain contemplate continue contribute convert convey
convince cooperate coordinate create criticize cultivate customize decide declare decorate deduct deepen defend define
delete deliver demonstrate deny depend depict derive describe deserve destroy detach detect determine develop devise
devote digitize dilute diminish disagree disappear disassemble discard disclose disconnect discourage discover discuss
dismiss dispose dissolve distinguish distribute diversify divide do donate draw earn eat educate elaborate elevate
eliminate embark embed embrace emerge emit emphasize employ empower enable encourage enforce engage enhance enjoy
enlarge enlist enrich enroll ensure enter entertain equip erase establish evaluate examine exceed exclude execute exist
expand expect explain explore express extend facilitate fail feed fetch fill finalize finish flatten flip follow forbid
forget forgive formulate foster fulfill gather generate get give go grab grate greet grow happen have hear help hesitate
hide identify ignore illustrate imagine immerse implement imply impose improve include incorporate indicate inform
inherit initialize initiate insert insist inspect inspire install instruct integrate intend interact interpret introduce
invent invest investigate involve isolate iterate join justify keep knead kneel know learn leave lend let listen locate
lose lower maintain make manage marinate maximize meditate meet memorize mention merge minimize modify motivate multiply
navigate negotiate nominate notify nurture obey observe obtain occur omit open operate optimize organise organize
originate outline overcome overlook oversee participate perceive perform persist persuade practise predict prefer
prepare prescribe preserve pretend prevent prioritize proceed prohibit promote pronounce propose protect prove provide
publish pursue put quantify react realise realize rearrange reassure receive recite recognise recognize recommend
reconcile reconsider recruit redesign reduce refer refine reflect refresh refuse register regulate reinforce reject
relate relax rely remain remember remind remove rename render renew replace replicate represent require reside resist
resolve respond restore restrict resume retain retrieve reuse reveal revise revisit rinse rotate satisfy seek seem
select sell send serve shorten simmer simplify simulate sing sit skip solve speak specialize specify spend sprinkle
strengthen strive submit subscribe subtract succeed suggest summarise summarize suppose surround survive sustain swap
take teach tell thank think thrive throw tighten transform translate transmit understand undertake unlock unplug unwind
utilise utilize validate vary verify view violate visualize want warn weigh widen wipe withdraw write
"""
BASE = frozenset(_BASE.split())

_NOUNS_TOO = """
access address advocate aim answer approach arm associate attack attempt award back balance ban base bend benefit bite
blend block board boil book boost bow break brush call camp capture care cast catch cause challenge change charge chart
chat check claim clean click climb code color comment commit concern contact contract control cook copy correct cost
count cover craft credit cross cry cure cut dance date deal debate debug decrease delay delegate demand design dig
digest dine dip display dive document doubt download draft drain dream dress drink drive drizzle drop dust ease edit
email end escape estimate exchange exercise experience experiment export extract face fall fear feel fight file find
fire fit fix flow fly focus fold force form format frame freeze fry function gain garnish grasp grill group guarantee
guess guide handle hang harm harvest head heat highlight hire hit hold hope host hug hunt hurt import increase influence
interview invite jog joke judge jump kick kill kiss label land last laugh launch lay lead lean leverage lie lift light
like limit line link list live load lock look love map march mark master match matter measure melt mind miss mix monitor
move mute name need note notice number object offer order own pack paint park pass pay peel permit phone pick pitch
place plan plant play plot point position post pour practice praise pray preheat present press print process produce
profile program progress project promise pull purchase push question quote race rain raise rank rate reach read reason
recall record release rent repair repeat reply report request rescue research reserve rest restart result retire return
review reward rewrite ride ring rise risk roast roll round row rule run rush sail sample save say scan schedule score
scrape scream scrub search season seat sense separate set sew shake shape share shift shine shoot shop show shower shut
sign sketch sleep slice slide slip smell smile smoke soak sort sound spark split spot spray spread squeeze stage stand
start state stay steal steam step stick stir stop store stress stretch strike structure struggle study substitute suit
supply support surprise suspect swallow sweep swim swing switch talk tape target task taste test text tie time tip toast
toss touch tour trace track trade train transfer transition transport travel treat trigger trim trust try turn type
update upgrade upload upset use value venture visit voice vote wait wake walk wash waste watch water wave wear welcome
whip whisk win wish wonder work worry wrap yield
"""
NOUNS_TOO = frozenset(_NOUNS_TOO.split())

_IRREGULAR = """
am are is was were been being has had having does did done began begun bought brought built came chose chosen cut drawn
drew driven drove felt found gave given went gone got gotten grew grown heard held kept knew known laid led left lost
made meant met paid put said sat saw seen sent shown sold sought spoke spoken spent stood taken taught thought told took
understood won wore worn written wrote
"""
IRREGULAR = frozenset(_IRREGULAR.split())

_HINTS = """
a an the this that these those all any both each every some no my your his her its our their me you him it us them
yourself up down off out about into on with to from through what how why where when which who if whether
"""
HINTS = frozenset(_HINTS.split())

# The tokenizer keeps stars, hyphens and underscores in the word ("**Run" is no word that the tagger knows).
_OPENING = re.compile(r"\s*([A-Za-z]+)(?![\w*/\\^~=+|-])\W{0,3}([A-Za-z]*)")
_NOT_VERBS = (
    "during",
    "nothing",
    "something",
    "anything",
    "everything",
    "morning",
    "evening",
    "king",
    "spring",
    "thing",
)


def opens_with_verb(text: str) -> bool:
    """Is the first word of `text` a verb in some form? Marks before it mean that it is not the first token."""
    opening = _OPENING.match(text)
    if opening is None:
        return False
    word, after = opening[1].lower(), opening[2].lower()
    if after == "t" and word.endswith("n"):
        word = word[:-1]  # "Don't" is the tokens `Do` and `n't`
    return word in BASE | IRREGULAR or (word in NOUNS_TOO and after in HINTS) or _is_inflected(word)


def _is_inflected(word: str) -> bool:
    """`creating`, `based`, `seems`: an ending on a verb of the lists (a plural noun is no verb: "Runs")."""
    if word in _NOT_VERBS:
        return False
    for ending, stems in (("ing", BASE | NOUNS_TOO), ("ed", BASE | NOUNS_TOO), ("s", BASE)):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1 and stems & _bases(stem, ending):
            return True
    return False


def _bases(stem: str, ending: str) -> set[str]:
    """What the verb may be without its ending: itself, with an "e", with one consonant less, with "y" for "i"."""
    if ending == "s":
        return {stem, stem.removesuffix("e"), stem.removesuffix("ie") + "y"}
    single = {stem[:-1]} if stem[-1:] == stem[-2:-1] else set()
    return {stem, stem + "e", stem.removesuffix("i") + "y"} | single
