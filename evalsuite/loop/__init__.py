"""The loop: stages of trainer → gate → promote, each of which starts from what the one before it promoted."""

from evalsuite.loop.hooks import CheckFn, Gated, GateFn, Hooks, PromoteFn
from evalsuite.loop.plan import Plan, make_plan
from evalsuite.loop.run import Ended, run_loop
from evalsuite.loop.single import Trained, train_stage

__all__ = [
    "CheckFn", "Ended", "GateFn", "Gated", "Hooks", "Plan", "PromoteFn", "Trained", "make_plan", "run_loop",
    "train_stage",
]  # fmt: skip
