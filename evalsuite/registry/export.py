"""A promotion shown in MLflow: a model version with an alias and tags. One way: the registry reads nothing back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from evalsuite.errors import RegistryError, UsageError
from evalsuite.registry import Registry
from evalsuite.registry.refs import Ref

TAG = "evalsuite.event"  # the hash of the promotion's event: what was exported once is found again by it


@dataclass(frozen=True, slots=True)
class Exported:
    """`created` is false when this promotion was exported before; then only the alias was set."""

    model: str
    version: str
    alias: str
    created: bool


def to_mlflow(registry: Registry, uri: str, *, ref: str = "champion", model: str = "evalsuite") -> Exported:
    """Writes what a ref points to as a version of a registered model, with the ref's name as its alias.

    Raises UsageError when mlflow is not installed, RegistryError when there is no such ref or MLflow refuses.
    """
    mlflow, refused = _mlflow()
    current = registry.ref(ref)
    if current is None:
        raise RegistryError(f"there is no {ref} yet to export (see: evalsuite promote)")
    if not model or "'" in model or "/" in model or ":" in model:
        raise UsageError(f"{model!r} is no name of an MLflow model; expected one without ', / and :")
    try:
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        version, created = _version(client, registry, current, model, uri)
        client.set_registered_model_alias(model, ref, version)
    except refused as error:
        raise RegistryError(f"{_public(uri)}: MLflow refused the export ({error})") from error
    exported = Exported(model, version, ref, created)
    detail = {"to": "mlflow", "uri": _public(uri), "model": model, "version": version}
    registry.record("export", ref=ref, id=current.id, detail=detail)
    return exported


def _mlflow() -> tuple[Any, type[Exception]]:
    try:
        mlflow = importlib.import_module("mlflow")
        refused: type[Exception] = importlib.import_module("mlflow.exceptions").MlflowException
    except ImportError as error:
        raise UsageError(f"mlflow cannot be imported ({error}); install it: pip install mlflow") from error
    return mlflow, refused


def _version(client: Any, registry: Registry, current: Ref, model: str, uri: str) -> tuple[str, bool]:
    """(version, whether it is new)."""
    if not client.search_registered_models(filter_string=f"name='{model}'"):
        client.create_registered_model(model)
    for known in client.search_model_versions(f"name='{model}'"):
        if known.tags.get(TAG) == current.event_hash:
            return str(known.version), False
    manifest = registry.manifest(current.id) or {}
    made = client.create_model_version(model, _source(manifest, current, uri), tags=_tags(registry, current, manifest))
    return str(made.version), True


def _source(manifest: Mapping[str, Any], current: Ref, uri: str) -> str:
    """Where the weights lie. A tracking server refuses paths of this machine, so it is told the digest instead."""
    path = manifest.get("checkpoint", {}).get("path")
    return f"evalsuite://{current.id}" if path is None or urlsplit(uri).scheme in ("http", "https") else str(path)


def _tags(registry: Registry, current: Ref, manifest: Mapping[str, Any]) -> dict[str, str]:
    event = registry.events()[current.event_seq - 1]
    facts = {
        TAG: event.hash,
        "evalsuite.checkpoint": current.id,
        "evalsuite.name": manifest.get("checkpoint", {}).get("name"),
        "evalsuite.path": manifest.get("checkpoint", {}).get("path"),
        "evalsuite.generation": str(current.generation),
        "evalsuite.verdict": event.verdict,
        "evalsuite.promoted_at": event.ts,
        "evalsuite.promoted_by": event.actor,
        "evalsuite.reason": event.reason,
        "evalsuite.overridden_by": event.detail.get("overridden_by"),
    }
    return {key: str(value) for key, value in facts.items() if value}


def _public(uri: str) -> str:
    """The address without user, password and query: the log is for everybody."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
