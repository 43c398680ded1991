"""The same job on a real Ray cluster of two nodes, one of which dies in the middle."""

from __future__ import annotations

import builtins
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from decontam.errors import DecontamError
from decontam.index import build
from decontam.job import Options, run
from decontam.job.progress import Silent
from decontam.job.work import Done
from decontam.ray import map_batches, on_ray
from decontam.rules import RULES
from decontam.types import Shard
from tests.decontam.job.plain import Plain, make_job, scan, sums, tree, write_rows


def test_without_ray_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(DecontamError, match=r"pip install evalsuite\[ray\]") as caught:
        on_ray()
    assert caught.value.exit_code == 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of a head without cores for work and two nodes, with this process as its driver."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install evalsuite[ray]")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


class Killing(Silent):
    """Takes a node away, with the task that runs on it, once five shards are done."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.n_done = cluster, 0

    def scanned(self, done: Done, on_disk: int) -> None:
        self.n_done += 1
        if self.n_done == 5:
            self.cluster.remove_node(self.cluster.nodes[0], allow_graceful=False)


class Dying(Plain):
    """A scanner whose process is killed by the tenth shard, once."""

    def scan(self, index: Any, selection: Any, shard: Shard, options: Options) -> Any:
        died = Path(shard.path).with_suffix(".died")
        if shard.number == 10 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scan(index, selection, shard, options)


class Refusing(Plain):
    """A scanner that finds fault with training data."""

    def scan(self, index: Any, selection: Any, shard: Shard, options: Options) -> Any:
        if shard.path.endswith("/a.jsonl"):
            raise DecontamError(f"{shard.file}: no column")
        return super().scan(index, selection, shard, options)


@pytest.mark.slow
def test_batches_of_a_ray_data_set_are_tagged(tmp_path: Path, cluster: Any) -> None:
    rows = [json.loads(line) for line in write_rows(tmp_path / "a.jsonl", 200).read_text().splitlines()]
    index = build([sums()], RULES["tulu3"], cache=tmp_path / "cache")
    on_ray(cluster.address)  # connects this process
    parts = [pa.Table.from_pylist(rows[i : i + 50]) for i in range(0, 200, 50)]
    data = pytest.importorskip("ray.data").from_arrow(parts)
    found = {
        row["text"]: [tag["instance"] for tag in row["contamination"] if tag["score"] == 1]
        for row in map_batches(data, index, concurrency=1).take_all()
    }
    assert found == {row["text"]: [str(i // 10)] if i % 10 == 0 else [] for i, row in enumerate(rows)}
    with pytest.raises(DecontamError, match="no row has text at 'txet'"):
        map_batches(data, index, select=["txet"])


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_and_a_node_writes_the_bytes_of_one_thread(tmp_path: Path, cluster: Any) -> None:
    data, cache = write_rows(tmp_path / "a.jsonl", 300), tmp_path / "cache"
    done = scan(make_job([data], cache), tmp_path / "whole", 1)
    job = make_job([data], cache, scanner=Dying(0.1))
    observer = Killing(cluster)
    runner = on_ray(cluster.address)
    assert run(job, tmp_path / "out", runner, observer).exit == done.exit == 1
    assert observer.n_done > 15
    assert (tmp_path / "a.died").exists()
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    # What is done is not done again.
    assert run(job, tmp_path / "out", runner, again := Killing(cluster)).exit == 1
    assert again.n_done == 0


@pytest.mark.slow
def test_what_a_task_raises_is_told_as_in_a_thread(tmp_path: Path, cluster: Any) -> None:
    job = make_job([write_rows(tmp_path / "a.jsonl", 30)], tmp_path / "cache", scanner=Refusing())
    with pytest.raises(DecontamError, match=r"a\.jsonl: no column"):
        run(job, tmp_path / "out", on_ray(cluster.address), Silent())
