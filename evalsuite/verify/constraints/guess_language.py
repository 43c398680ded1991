"""Tells IFEval's 30 languages apart by script, letters and small words; stands in where langdetect is not installed."""

from __future__ import annotations

import re
from collections import Counter

CHARS = 10_000

# Scripts that only one of the 30 languages is written in; the last two are the kana and the Hangul syllables.
_ONE_LANGUAGE = {
    "he": (0x0590, 0x05FF),
    "bn": (0x0980, 0x09FF),
    "pa": (0x0A00, 0x0A7F),
    "gu": (0x0A80, 0x0AFF),
    "ta": (0x0B80, 0x0BFF),
    "te": (0x0C00, 0x0C7F),
    "kn": (0x0C80, 0x0CFF),
    "ml": (0x0D00, 0x0D7F),
    "th": (0x0E00, 0x0E7F),
    "ja": (0x3040, 0x30FF),
    "ko": (0xAC00, 0xD7AF),
}
_SHARED = {
    "latin": (0x0041, 0x024F),
    "vietnamese": (0x1EA0, 0x1EF9),
    "cyrillic": (0x0400, 0x04FF),
    "arabic": (0x0600, 0x06FF),
    "devanagari": (0x0900, 0x097F),
    "han": (0x4E00, 0x9FFF),
}

# Letters that only one of the languages of a script uses, and its most frequent small words.
_MARKS = {
    "latin": {
        "de": ("ßäü", "der die das und ist nicht ein eine ich sie es mit von zu den dem im auf für auch wir wie"),
        "en": ("", "the of and to in is a that it for was on are with as be this have at by not you we from"),
        "es": ("ñ¿¡", "el la los las de que y en un una es se no por con para su al lo como más pero este muy mi"),
        "fi": ("", "ja on ei se että hän oli kun mutta ovat olla minä sinä me niin kuin joka tämä myös hyvin ole"),
        "fr": (
            "œçêèàùû",
            "le la les de des et est un une que qui dans pour pas sur avec au ce il nous je vous du sont",
        ),
        "it": ("", "il la di che e è un una per non con sono del della i le si al gli ma come anche più nel mia"),
        "pl": ("ąęłńśźż", "i w na z się nie do jest to że jak o po co dla od przez ale za czy tak są moja jego"),
        "pt": ("ãõ", "o a os as de que e do da em um uma não para com por se mais no na ao é como dos foi meu minha"),
        "sw": ("", "na ya wa kwa ni katika la za cha hii kuwa yake au kama lakini sana hali kila watu pia yangu hiyo"),
        "vi": ("đơưăạảấầẩậắặẹẻẽếềểệịỉọỏốồổộớờởợụủứừửựỳỹ", "và là của có không được cho một trong người với các"),
    },
    "cyrillic": {
        "bg": ("", "и на да се е за от са с не по ще това които като си той ги бе тя му ли беше съм има може сме"),
        "ru": ("ыэё", "и в не на что с я это как он но они мы все она так его по из у за вы же был от мой очень"),
        "uk": ("іїєґ", "і та що не на це з у є до в як ми він вони але для від за його я вона ви був або дуже"),
    },
    "arabic": {
        "ar": ("ةىيكأإ", "في من على إلى أن هذا هذه التي الذي كان لا ما مع هو هي عن كل قد لم بين بعد"),
        "fa": ("پچژگکی", "و در به از که را این است با می‌کنند می برای آن یک خود تا بر هم من ما شما بود هر"),
        "ur": ("ےٹڈڑںہھ", "ہے ہیں اور کے کی میں کا سے کو نے پر یہ وہ ایک کہ بھی تھا ہم"),
    },
    "devanagari": {
        "hi": ("", "है हैं और में के का की को से पर ने यह वह एक भी नहीं था हम हो कि जो रहे मेरी मेरा इस"),
        "mr": ("ळ", "आहे आहेत आणि हे या तो ती मी आम्ही नाही होते एक च्या मध्ये ते का पण माझी माझा"),
        "ne": ("", "छ छन् र को मा यो त्यो हामी म लाई पनि थियो हुन् हो गर्न मेरो मेरी छैन एक भने"),
    },
}
_ENDINGS = {
    "fi": re.compile(r"(?:aa|ää|ssa|ssä|sta|stä|lla|llä|nen|vat|vät)\b"),
    "ne": re.compile(r"(?:हरू|लाई|छन्|छिन्|न्छ|छौं|बाट)(?!\w)"),
    "mr": re.compile(r"(?:ाचे|ाची|ाचा|ांना|तात|ून|ायचे|ते|तो)(?!\w)"),
    "bg": re.compile(r"(?:ът|ите|ото|ата|ят)\b"),
    "sw": re.compile(r"\b(?:wana|tuna|ana|nina|una|ku)\w+"),
}


def guess_language(text: str) -> str | None:
    """ISO 639-1 code of the most likely language among the 30 and Chinese; None for a text without letters.

    Only the first 10,000 characters are read.
    """
    text = text[:CHARS].lower()
    scripts = Counter(name for name in map(_script, text) if name)
    if not scripts:
        return None
    if scripts["ja"] and scripts["ja"] + scripts["han"] > scripts["latin"]:
        return "ja"  # kanji may outnumber kana
    script = scripts.most_common(1)[0][0]
    if script == "han":
        return "zh-cn"
    if script in _ONE_LANGUAGE:
        return script
    return _by_marks(text, "latin" if script == "vietnamese" else script)


def _script(char: str) -> str | None:
    if not char.isalpha():
        return None
    code = ord(char)
    for name, (first, last) in (*_SHARED.items(), *_ONE_LANGUAGE.items()):
        if first <= code <= last:
            return name
    return None


def _by_marks(text: str, script: str) -> str:
    words = Counter(re.findall(r"[^\s.,;:!?\"()।؟،*]+", text))
    letters = Counter(text)
    points: dict[str, float] = {}
    for language, (marks, small) in _MARKS[script].items():
        points[language] = sum(words[word] for word in small.split()) + sum(letters[mark] for mark in marks) / 2
        if language in _ENDINGS:
            points[language] += len(_ENDINGS[language].findall(text)) / 2
    return max(sorted(points), key=points.__getitem__)
