"""PopQA: is one of the answer's names in the response (Mallen et al. 2023, arXiv 2212.10511)?

Prompt, exemplars and matching are those of allenai/olmes @5a51f50, `popqa::tulu`.
"""

import json
from collections.abc import Mapping
from typing import Any

from evalsuite.errors import DataError
from evalsuite.types import Score
from evalsuite.verify.lmeval import as_process_results
from evalsuite.verify.text import found_alias

# Rows of the test split, one of each relation. They are scored as well, each with its own answer in the prompt
# (quirk popqa-self-exemplar).
EXEMPLAR_IDS = (
    *(5985932, 724502, 2285098, 2007997, 3785558, 4202904, 6081578, 2180840),
    *(6036329, 867482, 1378543, 5801967, 4339770, 6418858, 2238655),
)


def verify(response: str, doc: Mapping[str, Any]) -> Score:
    alias = found_alias(response, json.loads(doc["possible_answers"]))
    return Score(float(alias is not None), extracted=alias, why="" if alias else "no alias in the response")


process_results = as_process_results(verify)


def gold_response(doc: Mapping[str, Any]) -> str:
    return str(doc["obj"])


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"Q: {doc['question']} A:"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["obj"])


def without_exemplars(rows: Any) -> Any:
    """Without the quirk popqa-self-exemplar: no row is asked that stands, with its answer, among the shots."""
    return rows.filter(lambda row: row["id"] not in EXEMPLAR_IDS)


def shots(rows: Any) -> Any:
    """The exemplar rows in their order; raises DataError naming the ids that are not in the data."""
    place = {int(row_id): n for n, row_id in enumerate(rows["id"][:])}
    missing = [i for i in EXEMPLAR_IDS if i not in place]
    if missing:
        raise DataError(
            f"popqa: {len(missing)} of the {len(EXEMPLAR_IDS)} exemplar rows are not among the {len(place)} rows of "
            f"the data (id {', '.join(map(str, missing))}); use the complete test split of akariasai/PopQA"
        )
    return rows.select([place[i] for i in EXEMPLAR_IDS])
