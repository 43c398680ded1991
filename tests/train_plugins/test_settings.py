"""Options that cannot be meant are refused, all of a stage at once, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from evalsuite.errors import UsageError
from evalsuite.trainers import parse
from train_plugins.settings import DPOOptions, RMOptions, SFTOptions, TrainingOptions

GOOD: dict[str, Any] = {"lr": 1e-6, "epochs": 1, "batch": 8, "max_length": 128, "weight_decay": 0.0}
PAIRS: dict[str, Any] = {**GOOD, "beta": 5.0}
REFUSED: list[tuple[type[TrainingOptions], dict[str, Any], str]] = [
    (SFTOptions, {"lr": float("nan")}, "lr is nan; it must be above 0"),
    (SFTOptions, {"adam_eps": 0.0}, "adam_eps is 0.0; it must be above 0"),
    (SFTOptions, {"weight_decay": -0.1}, "weight_decay is -0.1; at least 0"),
    (SFTOptions, {"pack_tokens": 0}, "pack_tokens is 0; at least 1"),
    (SFTOptions, {"lora": {"r": 0}}, "lora.r is 0; at least 1"),
    (SFTOptions, {"lora": {"targets": []}}, "lora.targets is empty"),
    (SFTOptions, {"lora": {"dropout": 1.0}}, "lora.dropout is 1.0; from 0 to below 1"),
    (DPOOptions, {"beta": 0.0}, "beta is 0.0; it must be above 0"),
    (DPOOptions, {"label_smoothing": 0.5}, "label_smoothing is 0.5; from 0 to below 0.5"),
    (DPOOptions, {"label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing has no meaning for loss ipo"),
    # TRL sets the dropout of adapters to 0 here and says nothing.
    (DPOOptions, {"lora": {"dropout": 0.1}}, "lora.dropout is 0.1, but dpo and rm train without dropout"),
    (RMOptions, {"lora": {"dropout": 0.1}}, "lora.dropout is 0.1, but dpo and rm train without dropout"),
    (RMOptions, {"held_out": 1.0}, "held_out is 1.0; from 0 to below 1"),
    (RMOptions, {"held_out": -0.1}, "held_out is -0.1; from 0 to below 1"),
]


@pytest.mark.parametrize(("config", "given", "told"), REFUSED)
def test_an_option_that_cannot_be_meant_is_refused(
    config: type[TrainingOptions], given: dict[str, Any], told: str
) -> None:
    base = PAIRS if config is DPOOptions else GOOD
    parse(config, base, "options")
    with pytest.raises(UsageError) as error:
        parse(config, {**base, **given}, "options")
    assert told in str(error.value)


def test_all_problems_of_a_stage_are_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        DPOOptions(**{**PAIRS, "batch": 0, "beta": -1.0}, lora=None)
    assert str(error.value) == "batch is 0; at least 1; beta is -1.0; it must be above 0"


@pytest.mark.parametrize("held_out", [0.0, 0.5])
def test_nothing_need_be_held_out(held_out: float) -> None:
    assert RMOptions(**GOOD, held_out=held_out).held_out == held_out
