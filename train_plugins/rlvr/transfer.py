"""Weights from the learner's GPU memory into vLLM's, by vLLM's weight-transfer API. Imports vllm; the learner's side.

**Unmeasured**: written against vLLM 0.32's source (vllm/distributed/weight_transfer) and never run on a GPU. The canary
after every transfer tells whether it works.
"""

from __future__ import annotations

from typing import Any, Literal

from evalsuite.errors import UsageError
from train_plugins.rlvr.serving import Served


class Client:
    """What vLLM's trainers call (its `VLLMWeightSyncClient`), passed on through the pipe to the generator's process."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.served.call("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        self.served.call("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self.served.call("update_weights", update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.served.call("finish_weight_update", weight_version)


class WeightSender:
    """Sends the parameters of `model` by `ipc` (one node; engine and learner on the same GPUs) or `nccl` (other GPUs).

    Made and used on every process of the learner: gathering a sharded model takes all of them, one parameter at a
    time. `served` is that of process 0, None elsewhere; the generator must be idle. `n_workers` are the processes of
    the engine (its `tensor_parallel_size`). `port` is free on this machine (nccl; None: one is found).
    """

    def __init__(
        self, kind: Literal["ipc", "nccl"], model: Any, served: Served | None, *, rank: int = 0, n_workers: int = 1,
        port: int | None = None,
    ) -> None:  # fmt: skip
        import torch
        from vllm.distributed.weight_transfer.base import ModuleSource
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        if not torch.cuda.is_available():
            raise UsageError(f"weight_transfer: {kind} is between GPUs and none is visible; use auto")
        if (served is None) != (rank != 0):
            raise RuntimeError(f"process {rank}: process 0 alone talks to the generator")
        self._served = served
        client = None if served is None else Client(served)
        self._engine = WeightTransferTrainerFactory.trainer_init(
            _init_info(kind, rank, n_workers, port), client=client, source=ModuleSource(model)
        )

    def send(self, version: int) -> None:
        """Returns when the generator has the weights; they are called `version` from then on."""
        self._engine.send_weights()
        if self._served is not None:
            self._served.adopt(version)

    def close(self) -> None:
        self._engine.shutdown()


def _init_info(kind: str, rank: int, n_workers: int, port: int | None) -> Any:
    if kind == "ipc":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        # Packed: no more than one buffer of copies at a time beside the weights.
        return IPCTrainerInitInfo(rank=rank, packed=True)
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
    from vllm.utils.network_utils import get_open_port

    return NCCLTrainerInitInfo(
        rank=rank,
        master_address="127.0.0.1",
        master_port=port or get_open_port(),
        world_size=1 + n_workers,
    )
