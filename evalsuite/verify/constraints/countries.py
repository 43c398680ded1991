"""Finds the names of countries in a text: the fall-back where spaCy's English model is absent.

The 193 members and two observers of the United Nations, with Kosovo and Taiwan and the usual other names of each.
Adjectives and inhabitants ("French") are no names; England, Scotland and Wales count as the United Kingdom. A name that
is also something else ("Georgia", "Jordan", "Chad") counts whenever it is written with a capital.
"""

from __future__ import annotations

import re
from functools import cache

# Countries between semicolons, their other names after commas. "U.S." is the words U and S here.
_TABLE = """
Afghanistan; Albania; Algeria; Andorra; Angola; Antigua and Barbuda; Argentina; Armenia; Australia; Austria; Azerbaijan;
Bahamas; Bahrain; Bangladesh; Barbados; Belarus; Belgium; Belize; Benin; Bhutan; Bolivia; Bosnia and Herzegovina,
Bosnia; Botswana; Brazil; Brunei; Bulgaria; Burkina Faso; Burundi; Cabo Verde, Cape Verde; Cambodia; Cameroon; Canada;
Central African Republic; Chad; Chile; China; Colombia; Comoros; Congo, Republic of the Congo; Democratic Republic of
the Congo, DR Congo, DRC; Costa Rica; Croatia; Cuba; Cyprus; Czech Republic, Czechia; Denmark; Djibouti; Dominica;
Dominican Republic; Ecuador; Egypt; El Salvador; Equatorial Guinea; Eritrea; Estonia; Eswatini, Swaziland; Ethiopia;
Fiji; Finland; France; Gabon; Gambia; Georgia; Germany; Ghana; Greece; Grenada; Guatemala; Guinea; Guinea Bissau;
Guyana; Haiti; Honduras; Hungary; Iceland; India; Indonesia; Iran; Iraq; Ireland; Israel; Italy; Ivory Coast, Côte d
Ivoire, Cote d Ivoire; Jamaica; Japan; Jordan; Kazakhstan; Kenya; Kiribati; Kosovo; Kuwait; Kyrgyzstan; Laos; Latvia;
Lebanon; Lesotho; Liberia; Libya; Liechtenstein; Lithuania; Luxembourg; Madagascar; Malawi; Malaysia; Maldives; Mali;
Malta; Marshall Islands; Mauritania; Mauritius; Mexico; Micronesia; Moldova; Monaco; Mongolia; Montenegro; Morocco;
Mozambique; Myanmar, Burma; Namibia; Nauru; Nepal; Netherlands, Holland; New Zealand; Nicaragua; Niger; Nigeria; North
Korea; North Macedonia, Macedonia; Norway; Oman; Pakistan; Palau; Palestine; Panama; Papua New Guinea; Paraguay; Peru;
Philippines; Poland; Portugal; Qatar; Romania; Russia; Rwanda; Saint Kitts and Nevis, St Kitts and Nevis; Saint Lucia,
St Lucia; Saint Vincent and the Grenadines, St Vincent and the Grenadines; Samoa; San Marino; São Tomé and Príncipe, Sao
Tome and Principe; Saudi Arabia; Senegal; Serbia; Seychelles; Sierra Leone; Singapore; Slovakia; Slovenia; Solomon
Islands; Somalia; South Africa; South Korea, Korea; South Sudan; Spain; Sri Lanka; Sudan; Suriname; Sweden; Switzerland;
Syria; Taiwan; Tajikistan; Tanzania; Thailand; Timor Leste, East Timor; Togo; Tonga; Trinidad and Tobago; Tunisia;
Turkey, Türkiye, Turkiye; Turkmenistan; Tuvalu; Uganda; Ukraine; United Arab Emirates, UAE; United Kingdom, UK, U K,
Great Britain, Britain, England, Scotland, Wales, Northern Ireland; United States, United States of America, USA, US, U
S A, U S; Uruguay; Uzbekistan; Vanuatu; Vatican City, Holy See; Venezuela; Vietnam, Viet Nam; Yemen; Zambia; Zimbabwe
"""
_OTHER_PLACES = ("New Mexico", "Gulf of Mexico", "New South Wales")

_WORD = re.compile(r"[^\W\d_]+")


def find_countries(text: str) -> set[str]:
    """The countries named in `text`, each by the first of its names; the longest name counts ("Papua New Guinea")."""
    found: set[str] = set()
    names = _names()
    words = _WORD.findall(text)
    i = 0
    while i < len(words):
        for name, country in names.get(words[i], ()):
            if tuple(words[i : i + len(name)]) == name:
                found |= {country} - {""}
                i += len(name) - 1
                break
        i += 1
    return found


@cache
def _names() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """First word to the names that it opens, the longest first; a place that is no country belongs to ""."""
    table = [country.split(", ") for country in " ".join(_TABLE.split()).split("; ")]
    rows = [(name, names[0]) for names in table for name in names]
    rows += [(place, "") for place in _OTHER_PLACES]
    found: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, country in sorted(rows, key=lambda row: -len(row[0].split())):
        words = tuple(name.split())
        found.setdefault(words[0], []).append((words, country))
    return found
