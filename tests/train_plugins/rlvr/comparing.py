"""Tensors for the tests of arithmetic: made from lists, padded, compared, differentiated; float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

JUNK = 0.625  # what stands in padding: finite, and wrong wherever it is read


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), leaves)


def close(got: Tensor, expected: object, atol: float = 1e-9) -> None:
    torch.testing.assert_close(
        got, tensor(expected) if not isinstance(expected, Tensor) else expected, rtol=0, atol=atol
    )


def padded(rows: Sequence[Sequence[float]], width: int, junk: float = JUNK) -> Tensor:
    return tensor([[*row, *[junk] * (width - len(row))] for row in rows])
