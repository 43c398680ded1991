"""Licences of sources: SPDX ids, and which of them a mix refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from evalsuite.errors import did_you_mean

UNKNOWN = frozenset({"", "unknown", "unconfirmed", "not stated", "noassertion", "none"})
KNOWN = (
    "0BSD", "AFL-3.0", "AGPL-3.0-only", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0",
    "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "EUPL-1.2", "GFDL-1.3-or-later",
    "GPL-2.0-only", "GPL-3.0-only", "GPL-3.0-or-later", "ISC", "LGPL-3.0-only", "MIT", "MPL-2.0", "ODbL-1.0",
    "ODC-By-1.0", "PDDL-1.0", "Unlicense", "Zlib",
)  # fmt: skip
_BY_FOLDED = {each.casefold(): each for each in KNOWN}
_JOIN = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]")


@dataclass(frozen=True, slots=True)
class LicenceRule:
    """Licences that no source may have, and whether one may be without a known licence."""

    forbid: tuple[str, ...] = ()
    unknown: Literal["forbid", "allow"] = "forbid"


def is_unknown(licence: str) -> bool:
    """Whether it names no licence, or an expression has a part that names none."""
    return licence.strip().casefold() in UNKNOWN or any(part in UNKNOWN for part in parts(licence))


def parts(licence: str) -> list[str]:
    """The ids of an SPDX expression, case-folded."""
    return [part.strip().casefold() for part in _JOIN.split(licence) if part.strip()]


def spelled(licence: str) -> str:
    """The SPDX spelling of an id, of which case does not count; `unknown` for what names none, other words as given."""
    return "unknown" if is_unknown(licence) else _BY_FOLDED.get(licence.strip().casefold(), licence.strip())


def joined(licences: Iterable[str]) -> str:
    """One SPDX expression that all of them hold in: AND binds closer than OR, so those with an OR stand in brackets."""
    each = sorted({spelled(licence) for licence in licences})
    return each[0] if len(each) == 1 else " AND ".join(f"({one})" if " OR " in one else one for one in each)


def licence_problems(rule: LicenceRule, licences: Mapping[str, str]) -> Iterator[str]:
    """A line for each source whose licence the rule refuses or nobody can look up; for ids of the rule too."""
    forbidden = {each.strip().casefold() for each in rule.forbid}
    for each in rule.forbid:
        yield from (f"licence.forbid: {why}" for why in _spelling(each))
    for name, licence in licences.items():
        if is_unknown(licence):
            if rule.unknown == "forbid":
                yield f"{name}: the licence is unknown, which licence.unknown forbids (--without {name} leaves it out)"
            continue
        yield from (f"{name}: {why}" for why in _spelling(licence))
        if bad := [part for part in parts(licence) if part in forbidden]:
            yield f"{name}: the licence {', '.join(map(spelled, bad))} is forbidden (--without {name} leaves it out)"


def _spelling(licence: str) -> Iterator[str]:
    for part in (each.strip() for each in _JOIN.split(licence) if each.strip()):
        if part.casefold() not in _BY_FOLDED and not part.startswith("LicenseRef-"):
            near = did_you_mean(part, KNOWN)
            yield f"{part!r} is no SPDX id known here{near}; another one is written LicenseRef-{_dashed(part)}"


def _dashed(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
