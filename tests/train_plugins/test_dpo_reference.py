"""The reference of DPO is computed once for each pair, by the right model, and what is kept of it is what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalsuite.checkpoint import open_checkpoint
from evalsuite.errors import DataError, UsageError
from evalsuite.trainers import SaveRule, write_job
from tests.train_plugins import dpo_jobs
from tests.train_plugins.dpo_jobs import job_in, loss_and_gradient, losses, rows, run_of, steps_of, trained, worker
from tests.train_plugins.runs import run as fork_worker
from train_plugins.chat import TULU, load_tokenizer
from train_plugins.dpo_trainer import PairTrainer
from train_plugins.dpo_worker import check_same_tokenizer, prepare, work
from train_plugins.refcache import FOLDER, ReferenceCache
from train_plugins.settings import DPOOptions
from train_plugins.worker import main

models = dpo_jobs.models
against_other = dpo_jobs.against_other


class Counted:
    """Counts the pairs that a reference is asked about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        plain = PairTrainer.reference_logprobs

        def counted(trainer: PairTrainer, batch: Mapping[str, Tensor], n_pairs: int) -> Any:
            self.n += n_pairs
            return plain(trainer, batch, n_pairs)

        monkeypatch.setattr(PairTrainer, "reference_logprobs", counted)

    def since(self) -> int:
        n, self.n = self.n, 0
        return n


def test_only_new_pairs_are_computed_and_any_change_of_the_reference_misses(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counted(monkeypatch)
    content = rows(6)
    template = tmp_path / "other.jinja"
    template.write_text(TULU.replace("<|assistant|>\\n", "<|assistant|> "), encoding="utf-8")

    def pairs_computed(name: str, used: list[dict[str, Any]], **options: Any) -> int:
        prepare(run_of(job_in(tmp_path / name, models, used, **options)))
        return asked.since()

    assert pairs_computed("cold", content) == 6
    assert pairs_computed("warm", content) == 0
    assert pairs_computed("mixed", [*rows(2, seed=9), *reversed(content), content[0]]) == 2
    assert pairs_computed("cut", content, max_length=24) == sum(_length(row) > 24 for row in content)
    assert pairs_computed("template", content, chat_template=str(template)) == 6
    assert pairs_computed("reference", content, reference="other") == 6
    assert pairs_computed("attention", content, attention="eager") == 6
    assert pairs_computed("bf16", content, dtype="bfloat16") == 6
    assert pairs_computed("still warm", content, lr=1e-5, beta=1.0, batch=2) == 0
    assert len(list((tmp_path / FOLDER).iterdir())) == 2  # two sets of weights


def _length(row: Mapping[str, Any]) -> int:
    """Tokens of the longer side: each header is 2 (`<|user|>` and a line break), a turn ends with one more."""
    return max(sum(len(t["content"]) + 3 for t in row[side]) for side in ("chosen", "rejected"))


def test_a_cached_run_and_one_that_computes_as_it_goes_have_the_same_curve(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    for name in ("start", "other"):
        cached = trained(job_in(tmp_path / f"cached-{name}", models, rows(10), reference=name))
        going = trained(job_in(tmp_path / f"going-{name}", models, rows(10), reference=name, reference_cache=False))
        assert len(cached) == 3  # 10 pairs in steps of 4: the last one has 2
        assert losses(going) == pytest.approx(losses(cached), abs=1e-6)


def test_in_bfloat16_the_first_loss_is_near_ln_2(tmp_path: Path, models: dict[str, Path]) -> None:
    # Reference and policy run the same code, on rows padded to other widths: β 5 enlarges what that rounds differently.
    trainer = prepare(run_of(job_in(tmp_path / "dpo", models, rows(4), dtype="bfloat16")))
    with trainer.accelerator.autocast(), torch.no_grad():
        alone = [float(trainer.compute_loss(trainer.model, trainer.feed.batch([i]))) for i in range(4)]
    assert alone == pytest.approx([0.6931] * 4, abs=0.02)
    exact = prepare(run_of(job_in(tmp_path / "exact", models, rows(4)))).feed.references or ()
    rounded = trainer.feed.references or ()
    assert 1e-4 < max(abs(a.chosen - b.chosen) for a, b in zip(rounded, exact, strict=True)) < 2  # of about -100


def test_adapters_in_bfloat16_do_not_take_the_reference_of_float32_weights(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    """A run without adapters keeps float32 weights: what it put into the cache is another function, by 0.03 here."""
    prepare(run_of(job_in(tmp_path / "shared" / "full", models, rows(4), dtype="bfloat16")))
    found = [
        prepare(run_of(job_in(tmp_path / name / "lora", models, rows(4), dtype="bfloat16", lora={"r": 4})))
        for name in ("shared", "alone")
    ]
    after_others, alone = (trainer.feed.references for trainer in found)
    assert after_others == alone


def test_adapters_are_switched_off_for_the_reference(tmp_path: Path, models: dict[str, Path]) -> None:
    lora = {"r": 4, "alpha": 8.0}
    cached = trained(job_in(tmp_path / "cached", models, rows(8), lora=lora, lr=1e-2))
    going = trained(job_in(tmp_path / "going", models, rows(8), lora=lora, lr=1e-2, reference_cache=False))
    assert losses(cached)[0] == pytest.approx(0.6931471806, abs=1e-6)
    assert losses(cached)[1] != pytest.approx(0.6931471806, abs=1e-4)  # adapters on again, and trained
    assert losses(going) == pytest.approx(losses(cached), abs=1e-6)


def test_adapters_killed_between_state_and_checkpoint_are_the_trained_ones(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    options: dict[str, Any] = {"lora": {"r": 4, "alpha": 8.0}, "lr": 1e-2}
    jobs = [job_in(tmp_path / name / "dpo", models, rows(8), **options) for name in ("whole", "killed")]
    whole, killed = (replace(job, save=SaveRule(steps=1)) for job in jobs)
    trained(whole)
    write_job(killed)
    assert fork_worker(killed, partial(main, DPOOptions, work), "state-renamed:2") == -9
    trained(killed)
    weights = "checkpoints/step-000002/model.safetensors"
    assert (killed.out / weights).read_bytes() == (whole.out / weights).read_bytes()


def test_simpo_needs_no_reference_at_all(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counted(monkeypatch)
    trainer = prepare(run_of(job_in(tmp_path / "dpo", models, rows(4), loss="simpo", beta=2.0)))
    assert (asked.since(), trainer.ref_model, (tmp_path / FOLDER).exists()) == (0, None, False)
    loss, _ = loss_and_gradient(trainer, [trainer.feed.batch(range(4))], 4)
    assert loss > 0


def test_a_reference_that_reads_other_tokens_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    ours, theirs = (load_tokenizer(models["start"], TULU) for _ in range(2))
    theirs.add_tokens(["<more>"])
    reference = open_checkpoint(models["other"])
    check_same_tokenizer(ours, load_tokenizer(models["other"], TULU), reference)
    with pytest.raises(UsageError, match="differs from the start's in token"):
        check_same_tokenizer(theirs, ours, reference)
    theirs.eos_token = "a"
    with pytest.raises(UsageError, match="in eos_token \\('a', not '</s>'\\)"):
        check_same_tokenizer(ours, theirs, reference)


def test_a_reference_that_gives_no_number_names_the_pair(against_other: PairTrainer, tmp_path: Path) -> None:
    with torch.no_grad():
        against_other.model.lm_head.weight[0, 0] = float("nan")
    against_other.cache = ReferenceCache(tmp_path / "empty")
    with pytest.raises(DataError, match=r"row0-\d: the reference gives it log-probabilities nan"):
        against_other._precompute_ref_logps(None, "train", 4)
    assert not list((tmp_path / "empty").glob("*"))


@pytest.mark.slow
def test_killed_in_the_reference_pass_and_in_training_it_ends_as_if_never_killed(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    content, options = rows(1100), {"batch": 8, "max_steps": 6}
    jobs = [job_in(tmp_path / name / "dpo", models, content, **options) for name in ("whole", "killed")]
    whole, killed = (replace(job, save=SaveRule(steps=2)) for job in jobs)
    expected = trained(whole)
    cache = tmp_path / "killed" / FOLDER
    assert worker(killed, fault="reference-segment:2") == -9
    kept = {path.name for path in cache.glob("*/*.arrow")}
    assert len(kept) == 2  # 512 pairs each
    assert worker(killed, fault="step-logged:3") == -9
    trained(killed)
    assert len(list(cache.glob("*/*.arrow"))) == 3  # the last 76 pairs; nothing was computed twice
    assert {step["step"]: step["loss"] for step in steps_of(killed.out)} == dict(enumerate(losses(expected), 1))
    last = "checkpoints/step-000006/model.safetensors"
    assert (killed.out / last).read_bytes() == (whole.out / last).read_bytes()
