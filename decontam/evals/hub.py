"""Lists of evals as data, and the hub-shaped folders that hold them: `<root>/<owner>/<name>`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from decontam.errors import DecontamError, did_you_mean
from decontam.evals.files import SUFFIXES, read_rows, stem
from decontam.evals.sets import eval_set
from decontam.types import EvalSet, Kind

LISTS = Path(__file__).parent
_FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---", re.DOTALL)
_PART = re.compile(r"-\d{5}-of-\d{5}.*")


@dataclass(frozen=True, slots=True)
class Listed:
    """An eval of a list. Without `config` the default one of the data set is read, else all; `limit` rows of each."""

    name: str
    dataset: str
    split: str
    fields: tuple[str, ...]
    kind: Kind
    config: str = ""
    limit: int | None = None
    ours: bool = False  # not of the list's source


def read_list(name: str) -> tuple[Listed, ...]:
    """The evals of `decontam/evals/<name>.yaml`."""
    known = sorted(path.stem for path in LISTS.glob("*.yaml"))
    if name not in known:
        raise DecontamError(f"no list of evals named {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")
    rows = yaml.safe_load((LISTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return tuple(Listed(**{**row, "fields": tuple(row["fields"])}) for row in rows)


def load_list(name: str, data_root: Path | None, *, skip_missing: bool = False) -> list[EvalSet]:
    """The evals of a list that lie below `data_root`; raises DecontamError naming all that do not.

    `skip_missing` leaves out evals whose folder is absent; at least one must be there.
    """
    listed = read_list(name)
    if data_root is None:
        raise DecontamError(f"decontam:{name} needs --data-root DIR, a folder of <owner>/<name> data sets")
    absent = [each for each in listed if not (data_root / each.dataset).is_dir()]
    if absent and (not skip_missing or len(absent) == len(listed)):
        names = ", ".join(dict.fromkeys(each.dataset for each in absent))
        raise DecontamError(f"{data_root} lacks {names}; expected one folder each (--skip-missing leaves them out)")
    evals, faults = [], []
    for each in listed:
        if each in absent:
            continue
        try:
            evals.append(load_listed(each, data_root))
        except DecontamError as error:
            faults.append(str(error))
    if faults:
        raise DecontamError("\n".join(faults))
    return evals


def load_listed(listed: Listed, data_root: Path) -> EvalSet:
    """One eval of a list."""
    files = _files(data_root / listed.dataset, listed)
    rows: list[dict[str, Any]] = []
    ids: list[str] = []
    for config, paths in files.items():
        of_config = [row for path in paths for row in read_rows(path)][: listed.limit]
        rows += of_config
        ids += [f"{config}/{i}" if len(files) > 1 else str(i) for i in range(len(of_config))]
    source = " ".join(filter(None, (listed.dataset, listed.config, listed.split)))
    return eval_set(listed.name, rows, listed.fields, kind=listed.kind, ids=ids, source=source)


def _files(folder: Path, listed: Listed) -> dict[str, list[Path]]:
    """The files of the split in each config to be read."""
    configs = _declared(folder) or _laid_out(folder)
    have = {config: splits[listed.split] for config, splits in configs.items() if splits.get(listed.split)}
    if listed.config:
        have = {config: paths for config, paths in have.items() if config == listed.config}
    elif "default" in have:
        have = {"default": have["default"]}
    if not have:
        wanted = f"split {listed.split!r}" + (f" of config {listed.config!r}" if listed.config else "")
        found = "; ".join(f"{config}: {', '.join(splits)}" for config, splits in configs.items()) or "no data files"
        raise DecontamError(f"{listed.name}: {folder} has no {wanted}; it has {found}")
    return have


def _declared(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """{config: {split: files}} as the front matter of README.md says, empty where it says nothing."""
    try:
        found = _FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8"))
        header = yaml.safe_load(found[1]) if found else None
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DecontamError(f"{folder / 'README.md'}: its front matter cannot be read: {error}") from None
    configs = header.get("configs") if isinstance(header, Mapping) else None
    return {each["config_name"]: dict(_splits(folder, each)) for each in configs or () if "config_name" in each}


def _splits(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, list[Path]]]:
    for each in config.get("data_files") or ():
        if isinstance(each, Mapping):
            globs = [each["path"]] if isinstance(each["path"], str) else each["path"]
            yield each["split"], sorted({path for glob in globs for path in folder.glob(glob) if _is_data(path)})


def _laid_out(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """{config: {split: files}} as the hub lays them out: `config/split.ext`, `config/split-00000-of-00001.ext`.

    Files in no folder, or in `data`, are of the config `default`.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(p for p in folder.rglob("*") if _is_data(p)):
        parts = path.relative_to(folder).parts
        config = parts[0] if len(parts) > 1 and parts[0] != "data" else "default"
        found.setdefault(config, {}).setdefault(_PART.sub("", stem(path)), []).append(path)
    return found


def _is_data(path: Path) -> bool:
    return path.is_file() and path.name.endswith(SUFFIXES)
