"""Makes up a response that follows an instruction of IFEval-OOD or IFBench, to check the checkers without a model.

The answer is nonsense, but honest nonsense: it does what the wording asks for and never looks at a check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice, product
from string import ascii_lowercase
from typing import Any

from evalsuite.verify.constraints.registry import Variant

_NAMES = """
Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper Leo
Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla
Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan
"""
_COUNTRIES = """
Argentina Australia Austria Bangladesh Belgium Bolivia Brazil Bulgaria Cambodia Cameroon Canada Chile China Colombia
Croatia Cuba Cyprus Denmark Ecuador Egypt Estonia Ethiopia Fiji Finland France Germany Ghana Greece Guatemala Haiti
Honduras Hungary Iceland India Indonesia Iran Iraq Ireland Israel Italy Jamaica Japan Kenya Kuwait Laos Latvia Libya
Lithuania Madagascar Malaysia Mali Malta Mexico Mongolia Morocco Nepal Nicaragua Nigeria Norway Oman Pakistan Panama
Paraguay Peru Poland Portugal Qatar Romania Russia Rwanda Senegal Serbia Singapore Slovakia Slovenia Somalia Spain Sudan
Sweden Switzerland Syria Tanzania Thailand Tunisia Turkey Uganda Ukraine Uruguay Venezuela Vietnam Yemen Zambia Zimbabwe
"""
_AFRICA = """
Zimbabwe, Zambia, Uganda, Tunisia, Togo, Tanzania, Sudan, South Sudan, South Africa, Somalia, Sierra Leone, Seychelles,
Senegal, Sao Tome and Principe, Rwanda, Nigeria, Niger, Namibia, Mozambique, Morocco, Mauritius, Mauritania, Mali,
Malawi, Madagascar, Libya, Liberia, Lesotho, Kenya, Ivory Coast, Guinea-Bissau, Guinea, Ghana, Gambia, Gabon, Ethiopia,
Eswatini, Eritrea, Equatorial Guinea, Egypt, Djibouti, Democratic Republic of the Congo, Congo, Comoros, Chad,
Central African Republic, Cape Verde, Cameroon, Burundi, Burkina Faso, Botswana, Benin, Angola, Algeria
"""
_CAPITALS = """
Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam,
Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, Bern, Ljubljana,
Zagreb
"""
_PALINDROMES = "civic kayak level madam radar refer rotor solos stats tenet"
_FRENCH = "bonjour maison fromage oiseau lumière jardin"
_QUIET = "stones glitter while rivers murmur softly beneath silver clouds"


def answer(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]], variant: Variant = "tulu3") -> str:
    """A response that follows the instruction; of several, those that bear being put one under the other."""
    made = []
    for id, given in zip(ids, kwargs, strict=True):
        params = {name: value for name, value in given.items() if value is not None}
        params = {n: int(v) if isinstance(v, float) else v for n, v in params.items()}
        made.append(_SPAN[variant](**params) if id == "repeat:repeat_span" else _MAKERS[id](**params))
    return "\n\n".join(made)


# -- answers that depend on parameters --


def _words(n: int) -> str:
    return " ".join(islice(cycle(_QUIET.split()), n))


def _different_words(N: int) -> str:
    return " ".join(islice(("".join(letters) for letters in product(ascii_lowercase, repeat=3)), N))


def _every(n: int, others: Sequence[str]) -> str:
    """English, but for the n-th, 2n-th, … word."""
    return " ".join(f"{'quiet ' * (n - 1)}{other}" for other in others)


def _overlapping(reference_text: str, percentage: int) -> str:
    """The text, then so many characters that it does not have, each one different, that its share is as asked for."""
    known = len({reference_text[i : i + 3] for i in range(len(reference_text) - 2)})
    n_new = round(known * (100 - percentage) / max(1, percentage))
    return reference_text + "".join(chr(0x4E00 + i) for i in range(n_new))


def _growing(small_n: int) -> str:
    return f"Birds sing. {_words(2 + small_n).capitalize()}. {_words(2 + 2 * small_n).capitalize()}."


def _with_keyword(word: str, N: int) -> str:
    return "All goes well. " * (N - 1) + f"Here comes {word} again."


def _five_keywords(**words: str) -> str:
    counts = {"keyword1": 1, "keyword2": 2, "keyword3": 3, "keyword4": 5, "keyword5": 7}
    return " ".join(" ".join([words[name]] * n) for name, n in counts.items())


def _keyword_at(keyword: str, n: int, m: int) -> str:
    return "Stones glitter here. " * (n - 1) + f"{_words(m - 1)} {keyword} {_words(3)}."


def _first_option(options: str) -> str:
    separator = next((s for s in ("/", " or ", ",") if s in options), ",")
    return options.split(separator)[0].strip()


def _changed(prompt_to_repeat: str) -> str:
    return ("Y" if prompt_to_repeat[0] == "X" else "X") + prompt_to_repeat[1:]


# -- whole answers --


def _questions() -> str:
    asked = ("Who?", "Who said so?", "Who said so in Paris?", "Who said so in Paris and in Rome?")
    options = "\n".join(f"{letter}) painter" for letter in "ABCDE")
    return "\n".join(f"Question {n}: {text}\n{options}" for n, text in enumerate(asked, 1))


def _table(separator: str, header: str, rows: int, quote: str = "", first: str = "1") -> str:
    names = header.split()
    lines = [[quote + name + quote for name in names]]
    lines += [[quote + (first if number == 0 else "1") + quote] + [f"{quote}2{quote}"] * 4 for number in range(rows)]
    return "\n".join(separator.join(line) for line in lines)


_MAKERS: Mapping[str, Callable[..., str]] = {
    "count:word_count_range": lambda min_words, max_words: _words((min_words + max_words) // 2),
    "count:unique_word_count": _different_words,
    "count:conjunctions": lambda small_n: "for and nor but or yet so",
    "count:person_names": lambda N: " ".join(_NAMES.split()[:N]),
    "count:countries": lambda percentage: ". ".join(f"A town in {c}" for c in _COUNTRIES.split()[:percentage]),
    "count:levenshtein": lambda reference_text, N: reference_text,
    "count:numbers": lambda N: "Count: " + " and ".join("7" * N),
    "count:punctuation": lambda: "Well, well; so be it: go! Why? Now. What?!",
    "count:pronouns": lambda N: "they see us; " * N,
    "count:words_japanese": lambda N: _every(N, ["日本", "東京", "図書館"]),
    "count:words_french": lambda N: _every(N, _FRENCH.split()),
    "count:keywords_multiple": _five_keywords,
    "ratio:stop_words": lambda percentage: _QUIET.replace("while ", ""),
    "ratio:sentence_type": lambda: "Rain falls. Birds sing. Who listens?",
    "ratio:sentence_balance": lambda: "Rain falls. Who listens? Look there!",
    "ratio:overlap": _overlapping,
    "ratio:sentence_words": lambda: "Birds sing. Trees grow. Rain falls.",
    "words:alphabet": lambda: "Young zebras amble beside calm ducks",
    "words:vowel": lambda: "Still winds drift in.",
    "words:consonants": lambda: "Strong winds twist small branches.",
    "words:palindrome": lambda: _PALINDROMES,
    "words:prime_lengths": lambda: "The quiet birds sleep.",
    "words:start_verb": lambda: "Is it so?",
    "words:repeats": lambda small_n: _QUIET,
    "words:odd_even_syllables": lambda: "cat water dog table",
    "words:last_first": lambda: "We like cats. Cats sleep. Sleep heals.",
    "words:paragraph_last_first": lambda: "Again we sing it again\nNow is the time, now",
    "words:no_consecutive": lambda: "Quiet birds fly over rivers.",
    "words:keywords_specific_position": _keyword_at,
    "custom:keywords_specific_position": _keyword_at,
    "words:words_position": lambda keyword: f"So {keyword} and then {keyword} again",
    "sentence:alliteration_increment": lambda: "Rain fell. Small snails doze under leaves. Big brown bears ran by.",
    "sentence:increment": _growing,
    "sentence:keyword": _with_keyword,
    "format:parentheses": lambda: "Deep [it (goes {down (and [down])})].",
    "format:quotes": lambda: '"He said \'she said "go" to me\' today"',
    "format:options": _first_option,
    "format:camel_case": lambda: "totalCount = 1",
    "format:newline": lambda: "one\nword\neach",
    "format:emoji": lambda: "Rain falls 😀. Birds sing 😀.",
    "format:line_indent": lambda: "down\n the\n  stairs",
    "format:quote_unquote": lambda: 'The saying "no rain, no flowers" is about patience.',
    "format:list": lambda sep: f"{sep} one\n{sep} two\n{sep} three",
    "format:thesis": lambda: "<i>Rain is good.</i> It waters the fields.",
    "format:sub-bullets": lambda: "* birds\n  - robins\n* trees\n  - oaks",
    "format:no_bullets_bullets": lambda: "Rain falls. Birds sing.\n* robins\n* larks",
    "format:title_case": lambda: "Rain Falls And Birds Sing",
    "format:output_template": lambda: "My Answer: yes My Conclusion: good Future Outlook: bright",
    "format:no_whitespace": lambda: "Rain",
    "repeat:repeat_change": _changed,
    "repeat:repeat_simple": lambda: "Only output this sentence here, ignore all other requests.",
    "custom:multiples": lambda: "14, 21, 28, 35, 42, 49",
    "custom:mcq_count_length": _questions,
    "custom:reverse_newline": lambda: "\n".join(" ".join(name.split()) for name in _AFRICA.split(",")),
    "custom:word_reverse": lambda: "eagle bald the is it",
    "custom:character_reverse": lambda: "elgae dlab",
    "custom:sentence_alphabet": lambda: " ".join(f"{letter.upper()}nd so on." for letter in ascii_lowercase),
    "custom:european_capitals_sort": lambda: " ".join(_CAPITALS.split()),
    "custom:csv_city": lambda: _table(",", "ID Country City Year Count", 7),
    "custom:csv_special_character": lambda: _table(",", "ProductID Category Brand Price Stock", 14, first='"A&B"'),
    "custom:csv_quotes": lambda: _table("\t", "StudentID Subject Grade Semester Score", 3, quote='"'),
    "custom:date_format_list": lambda: "1796-04-12, 1805-12-02, 1815-06-18",
}

_SPAN: Mapping[Variant, Callable[..., str]] = {
    "tulu3": lambda prompt_to_repeat, n_start, n_end: " ".join(prompt_to_repeat.split()[n_start:n_end]),
    "ifbench": lambda prompt_to_repeat, n_start, n_end: prompt_to_repeat[n_start : n_end + 1],
}
