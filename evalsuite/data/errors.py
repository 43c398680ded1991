"""Says in one line what the Hugging Face libraries' errors mean; several of theirs name a wrong cause.

Types are told apart by name: importing the libraries that define them would cost a second, and the names are stable.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evalsuite.checkpoint.memory import cache_folder
from evalsuite.errors import DataError

if TYPE_CHECKING:
    from evalsuite.data import DatasetSpec

COPY = "or put a copy at DIR/{id}/ and pass --data-root DIR"
UNREACHABLE = frozenset(
    {"ConnectionError", "ConnectError", "TimeoutException", "Timeout", "TransportError", "NetworkError", "ProxyError"}
)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
GENERATION = frozenset({"DatasetGenerationError", "DatasetBuildError"})


def translate(error: Exception, spec: DatasetSpec) -> DataError | None:
    """The DataError to raise `from error` when loading `spec` failed with it; None when it is not about data.

    An own DataError comes back as it is.
    """
    if isinstance(error, DataError):
        return error
    said = _say(error, spec)
    return DataError(f"dataset {spec.id!r}: {said}") if said else None


def unexpected(error: Exception, spec: DatasetSpec) -> DataError:
    """As `translate`, for callers that only load data: what is not recognised is quoted."""
    return translate(error, spec) or DataError(f"dataset {spec.id!r}: {type(error).__name__}: {_first_line(error)}")


def _say(error: Exception, spec: DatasetSpec) -> str:
    chain = list(_causes(error))
    names = {c.__name__ for e in chain for c in type(e).__mro__}
    text = " ".join(str(e) for e in chain)
    copy = COPY.format(id=spec.id)
    if any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in chain):
        return (
            f"the disk is full; free some space, or point EVALSUITE_CACHE (now {cache_folder()}) and HF_HOME elsewhere"
        )
    if any(isinstance(e, OSError) and e.errno in NOT_WRITABLE for e in chain):
        return f"{_first_line(error)}; make it accessible, or point EVALSUITE_CACHE (now {cache_folder()}) elsewhere"
    if "OfflineModeIsEnabled" in names or "offline mode is enabled" in text:
        return f"not on this machine, and the network is off (HF_HUB_OFFLINE or --offline); allow it, {copy}"
    if "GatedRepoError" in names or "gated dataset" in text:
        return (
            f"it is gated: accept its terms on its hub page (datasets/{spec.id}) and set HF_TOKEN in the environment, "
            f"{copy}"
        )
    if "RevisionNotFoundError" in names or re.search(r"Revision .* doesn't exist", text):
        return f"the hub has no revision {spec.revision!r}; correct dataset_revision in the benchmark's YAML, {copy}"
    statuses = {getattr(getattr(e, "response", None), "status_code", 0) for e in chain}
    if failing := sorted(s for s in statuses if s == 429 or s >= 500):
        return f"the hub is busy or failing (HTTP {failing[0]}); try again later, {copy}"
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError"} or statuses & {401, 403, 404}:
        return f"it is not on the hub, or is private and HF_TOKEN does not open it; check the id, {copy}"
    if names & UNREACHABLE:
        return (
            f"the hub cannot be reached ({_first_line(chain[-1])}); check the network, use --offline if it was loaded "
            f"here before, {copy}"
        )
    return _say_shape(error, spec, names, text)


def _say_shape(error: Exception, spec: DatasetSpec, names: set[str], text: str) -> str:
    if found := re.search(r"BuilderConfig '([^']*)' not found\. Available: \[(.*?)\]", text):
        return f"no config {found[1]!r}; it has {_shorten(found[2])}; set dataset_name in the benchmark's YAML"
    if found := re.search(r"Config name is missing\..*?\[(.*?)\]", text, re.DOTALL):
        return f"it has several configs ({_shorten(found[1])}); set dataset_name in the benchmark's YAML"
    if found := re.search(r"Unknown split \"?'?(.*?)'?\"?\. Should be one of \[(.*?)\]", text):
        return f"no split {found[1]!r}; it has {found[2]}; correct the benchmark's YAML"
    if "scripts are no longer supported" in text:
        return f"it is a script, which datasets 4 and later do not run; {COPY.format(id=spec.id).removeprefix('or ')}"
    if names & {"DataFilesNotFoundError", "EmptyDatasetError"} or "Couldn't find any data file" in text:
        return f"no data files found; expected a README with configs:, or <split>.jsonl; {COPY.format(id=spec.id)}"
    if names & GENERATION:
        return f"a row cannot be read ({_first_line(list(_causes(error))[-1])})"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from or during, each once."""
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ or here.__context__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _shorten(listing: str, shown: int = 8) -> str:
    names = listing.replace("'", "").split(", ")
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
