"""Content-addressed objects: `objects/sha256/ab/cdef…` holds the canonical JSON whose sha256 is its name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalsuite.errors import RegistryError
from evalsuite.registry import durable
from evalsuite.registry.canonical import canonical

SHORTEST = 4  # hex digits of a digest that a person may type


class Store:
    """Write-once objects. `put` needs the registry's lock only so that `sweep` can tell what a crash left behind."""

    def __init__(self, root: Path) -> None:
        self.root = root / "objects" / "sha256"

    def put(self, obj: Any) -> str:
        """Stores an object and returns its digest; storing it again changes nothing."""
        data = canonical(obj)
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        if path.is_file():
            self._read(path, name)
            return name
        with durable.step("writing an object", path):
            durable.make_folder(path.parent)
            durable.replace(path, data, "object")
        return name

    def get(self, name: str) -> Any:
        """The object of a digest or of its beginning. Raises RegistryError: unknown, ambiguous, damaged."""
        full = self.find(name)
        return json.loads(self._read(self.path(full), full))

    def has(self, name: str) -> bool:
        return self.path(name).is_file()

    def find(self, name: str) -> str:
        """The whole digest that begins with `name` ("sha256:" may stand before it)."""
        start = name.removeprefix("sha256:").lower()
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", start):
            raise RegistryError(f"{name!r}: expected {SHORTEST} to 64 hex digits of a digest (evalsuite registry log)")
        if len(start) == 64:
            found = [start] if self.has(start) else []
        else:
            found = sorted(start[:2] + path.name for path in self._folder(start).glob(f"{start[2:]}*"))
        if not found:
            raise RegistryError(f"{name!r}: no such object in {self.root} (see: evalsuite registry log)")
        if len(found) > 1:
            shown = ", ".join(digest[: len(start) + 4] for digest in found[:4])
            raise RegistryError(f"{name!r}: {len(found)} objects begin with it ({shown}); type more digits")
        return found[0]

    def all(self) -> Iterator[tuple[str, Path]]:
        """(digest by its name, file) of every object, sorted."""
        for path in sorted(self.root.glob("*/*")):
            if not path.name.startswith("."):
                yield path.parent.name + path.name, path

    def faults(self) -> Iterator[str]:
        """Every object whose content is not what its name says."""
        for name, path in self.all():
            if hashlib.sha256(path.read_bytes()).hexdigest() != name:
                yield f"{path}: its content does not hash to its name; restore it from a copy"

    def sweep(self) -> None:
        """Removes temporary files that a killed process left. Hold the lock: nobody else is writing one then."""
        for part in self.root.glob(f"*/.*{durable.PART}"):
            with suppress(OSError):
                part.unlink()

    def path(self, name: str) -> Path:
        """Where the object of a whole digest is, or would be."""
        return self._folder(name) / name[2:]

    def _folder(self, name: str) -> Path:
        return self.root / name[:2]

    def _read(self, path: Path, name: str) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RegistryError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        if hashlib.sha256(data).hexdigest() != name:
            raise RegistryError(f"{path}: damaged, its content does not hash to its name; restore it from a copy")
        return data
