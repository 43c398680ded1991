"""Export to MLflow: a version, an alias and tags, once per promotion; a clear word when mlflow is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from evalsuite.errors import RegistryError, UsageError
from evalsuite.registry import Registry
from evalsuite.registry.export import Exported, to_mlflow
from tests.evalsuite.registry.places import make, promote


class Refused(Exception):
    pass


class Client:
    """What MlflowClient does with models, in memory."""

    models: ClassVar[dict[str, list[Any]]] = {}
    aliases: ClassVar[dict[tuple[str, str], str]] = {}
    broken = False

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        assert tracking_uri == registry_uri

    def search_registered_models(self, filter_string: str) -> list[str]:
        if self.broken:
            raise Refused("database is locked")
        return [name for name in self.models if filter_string == f"name='{name}'"]

    def create_registered_model(self, name: str) -> None:
        assert name not in self.models
        self.models[name] = []

    def search_model_versions(self, filter_string: str) -> list[Any]:
        return self.models[filter_string.removeprefix("name='").removesuffix("'")]

    def create_model_version(self, name: str, source: str, tags: dict[str, str]) -> Any:
        made = SimpleNamespace(version=str(len(self.models[name]) + 1), source=source, tags=tags)
        self.models[name].append(made)
        return made

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.aliases[name, alias] = version


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    fresh = type("Fresh", (Client,), {"models": {}, "aliases": {}})
    mlflow, exceptions = ModuleType("mlflow"), ModuleType("mlflow.exceptions")
    mlflow.MlflowClient = fresh  # type: ignore[attr-defined]
    exceptions.MlflowException = Refused  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    return fresh


def promoted(root: Path) -> Registry:
    registry = make(root)
    manifest = {"checkpoint": {"name": "run/step-5", "digest": "aa", "path": "/models/step-5"}}
    registry.promote(
        "champion", checkpoint_id="aa", manifest=manifest, expected_generation=0, verdict=None, reason="first"
    )
    return registry


def test_a_promotion_becomes_a_version_with_an_alias_and_tags(tmp_path: Path, client: type[Client]) -> None:
    registry = promoted(tmp_path)
    done = to_mlflow(registry, "sqlite:///mlflow.db", model="tulu")
    assert done == Exported("tulu", "1", "champion", True)
    (version,) = client.models["tulu"]
    event = registry.events()[0]
    assert version.source == "/models/step-5"
    assert version.tags == {
        "evalsuite.event": event.hash,
        "evalsuite.checkpoint": "aa",
        "evalsuite.name": "run/step-5",
        "evalsuite.path": "/models/step-5",
        "evalsuite.generation": "1",
        "evalsuite.promoted_at": event.ts,
        "evalsuite.promoted_by": "tester",
        "evalsuite.reason": "first",
    }
    assert client.aliases == {("tulu", "champion"): "1"}


def test_what_was_exported_is_not_exported_twice_and_every_export_is_logged(
    tmp_path: Path, client: type[Client]
) -> None:
    registry = promoted(tmp_path)
    to_mlflow(registry, "sqlite:///a.db")
    assert to_mlflow(registry, "sqlite:///a.db").created is False
    promote(registry, 1, "bb")
    assert to_mlflow(registry, "sqlite:///a.db").version == "2"
    assert client.aliases == {("evalsuite", "champion"): "2"}
    exports = [(e.id, e.detail["version"]) for e in registry.events() if e.event == "export"]
    assert exports == [("aa", "1"), ("aa", "1"), ("bb", "2")]


def test_passwords_stay_out_of_log_and_errors_and_a_server_is_given_no_path(
    tmp_path: Path, client: type[Client]
) -> None:
    registry = promoted(tmp_path)
    to_mlflow(registry, "https://kim:hunter2@mlflow.example/api?token=x")
    assert registry.events()[-1].detail["uri"] == "https://mlflow.example/api"
    assert client.models["evalsuite"][0].source == "evalsuite://aa"
    client.broken = True
    with pytest.raises(RegistryError, match=r"^https://mlflow.example/api: .*database is locked"):
        to_mlflow(registry, "https://kim:hunter2@mlflow.example/api?token=x")


def test_without_a_champion_there_is_nothing_to_export(tmp_path: Path, client: type[Client]) -> None:
    with pytest.raises(RegistryError, match="no champion yet"):
        to_mlflow(make(tmp_path), "sqlite:///a.db")
    with pytest.raises(UsageError, match="no name of an MLflow model"):
        to_mlflow(promoted(tmp_path), "sqlite:///a.db", model="a'b")


def test_mlflow_that_is_not_installed_is_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="pip install mlflow"):
        to_mlflow(promoted(tmp_path), "sqlite:///a.db")


def test_the_real_mlflow_takes_it(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    registry, uri = promoted(tmp_path / "registry"), f"sqlite:///{tmp_path}/mlflow.db"
    done = to_mlflow(registry, uri)
    found = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version_by_alias("evalsuite", "champion")
    assert (str(found.version), found.tags["evalsuite.checkpoint"]) == (done.version, "aa")
    assert to_mlflow(registry, uri).created is False
