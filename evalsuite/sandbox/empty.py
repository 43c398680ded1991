"""Empties a folder that a hostile program wrote to, however deep its folders are and whatever their modes."""

from __future__ import annotations

import os
import secrets


def empty(folder: str) -> None:
    """Nothing may write there any more. Folders are moved up before their turn, so no path gets long; links are not
    followed. What cannot be removed stays.
    """
    os.chmod(folder, 0o700)
    stubborn: set[str] = set()
    while todo := [entry for entry in _entries(folder) if entry.path not in stubborn]:
        for entry in todo:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                for inner in _entries(entry.path):
                    if inner.is_dir(follow_symlinks=False):
                        os.chmod(inner.path, 0o700)
                        # A name that the program cannot have taken already.
                        os.rename(inner.path, os.path.join(folder, secrets.token_hex(16)))
                    else:
                        os.unlink(inner.path)
                os.rmdir(entry.path)
            except OSError:
                stubborn.add(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return list(found)
