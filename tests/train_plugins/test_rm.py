"""The reward model: loss and gradient by hand, its head, what is dropped and held out, and that it is not promoted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import EvalsuiteError
from evalsuite.promotion import promote
from evalsuite.registry import Registry
from evalsuite.trainers import SaveRule, TrainJob, find_trainer, parse
from evalsuite.trainers.planning import PlanFacts
from tests.train_plugins.runs import curve, digests, log_of, make_job, make_start, of, pair_rows, run, warm
from train_plugins.rm import RM
from train_plugins.settings import RMOptions

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from train_plugins import rm_worker  # noqa: E402  (imports TRL)
from train_plugins.worker import Run, main  # noqa: E402

WORKER = partial(main, RMOptions, rm_worker.work)
OPTIONS: dict[str, Any] = {"epochs": 1, "adam_eps": 1e-5, "weight_decay": 0.01, "lr": 3e-3, "held_out": 0.2}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(make_start(tmp_path_factory.mktemp("start") / "tiny"))


def job_of(out: Path, start: Path, n: int = 40, **options: Any) -> TrainJob:
    return make_job(out, start, pair_rows(n), stage="rm", **{**OPTIONS, **options})


def trainer_of(job: TrainJob) -> tuple[Any, Any]:
    return rm_worker.make_trainer(Run(job, parse(RMOptions, job.options, "options")))


def plain(trainer: Any, rows: range) -> tuple[float, Any]:
    """(loss, gradient) of pairs one by one: the mean of -log sigmoid(r_chosen - r_rejected)."""
    trainer.model.zero_grad()
    total = torch.zeros(())
    for pair in (trainer._feed.pairs[i] for i in rows):
        chosen, rejected = (trainer.model(input_ids=torch.tensor([ids])).logits[0, 0]
                            for ids in (pair.chosen, pair.rejected))  # fmt: skip
        total = total - torch.log(1 / (1 + torch.exp(rejected - chosen)))
    (total / len(rows)).backward()
    vector = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    return float(total.detach()) / len(rows), vector


@pytest.mark.parametrize(("per_device", "processes"), [(8, 1), (1, 1), (4, 2), (2, 4)])
def test_a_step_has_the_loss_and_the_gradient_of_its_pairs_however_it_is_cut(
    per_device: int, processes: int, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = trainer_of(job_of(tmp_path / "out", start, per_device_batch=per_device))
    trainer.model.double()
    rows = range(7)  # one less than divides: a process has less to do than the others
    loss, expected = plain(trainer, rows)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", processes)
    trainer.model.zero_grad()
    losses = [float(trainer.training_step(trainer.model, trainer._feed(rows, rank, processes)))
              for rank in range(processes)]  # fmt: skip
    vector = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    assert sum(losses) / processes == pytest.approx(loss, abs=1e-9)
    assert (vector / processes - expected).abs().max() < 1e-9


def test_the_head_is_drawn_anew_with_the_spread_of_tulu_3(tmp_path: Path) -> None:
    start = make_start(tmp_path / "start", hidden=512, heads=4, layers=1)
    heads = []
    for seed in (7, 7, 8):
        trainer, _ = trainer_of(make_job(tmp_path / f"of {seed}", start, pair_rows(), stage="rm", seed=seed, **OPTIONS))
        heads.append(trainer.model.score.weight.detach().clone())
    assert heads[0].shape == (1, 512)
    # 1 / sqrt(512 + 1) = 0.04415; the spread of 512 draws is within 3.1 % of it, so 15 % are five times that
    assert float(heads[0].std()) == pytest.approx(513**-0.5, rel=0.15)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_every_parameter_decays_as_in_open_instruct(start: Path, tmp_path: Path) -> None:
    trainer, _ = trainer_of(job_of(tmp_path / "out", start))
    trainer.create_optimizer()
    decays = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    # transformers would leave out the five norms of two layers and the end
    assert {name: decays[id(p)] for name, p in trainer.model.named_parameters()} == dict.fromkeys(
        dict(trainer.model.named_parameters()), 0.01
    )


@pytest.mark.parametrize("pad_id", [0, 101])
def test_a_pass_without_pairs_has_ids_that_the_model_knows(pad_id: int) -> None:
    """The tiny model has 102 tokens, and models may have padding as their last one."""
    inputs = rm_worker.PairFeed([], pad_id, 1)._pad(())
    assert inputs["weights"].tolist() == [0.0]
    assert {number for row in inputs["input_ids"].tolist() for number in row} <= set(range(102)) - {pad_id}


def test_whoever_holds_nothing_out_on_purpose_is_not_warned(start: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", start, held_out=0.0)
    trainer, held_out = trainer_of(job)
    assert (trainer.n_rows, held_out.pairs) == (40, [])
    assert not of(job, "warning")
    few = job_of(tmp_path / "few", start, 2, held_out=0.01)
    trainer_of(few)
    assert [event["code"] for event in of(few, "warning")] == ["no_held_out"]


def test_metrics_begin_anew_where_training_does(start: Path, tmp_path: Path) -> None:
    trainer, _ = trainer_of(job_of(tmp_path / "out", start))
    trainer.training_step(trainer.model, trainer._feed(range(4), 0, 1))
    assert trainer._seen[0] == 4
    trainer.get_train_dataloader()  # what a rollback does
    assert trainer._seen[0] == 0


def test_long_pairs_are_dropped_and_prompts_are_held_out_by_their_hash(start: Path, tmp_path: Path) -> None:
    rows = pair_rows(40)
    long = [{**row, "rejected": [row["rejected"][0], {"role": "assistant", "content": "y" * 90}]} for row in rows[:5]]
    twins = [{**row, "id": f"twin of {row['id']}", "chosen": [row["chosen"][0], {"role": "assistant", "content": "xx"}]}
             for row in rows[5:]]  # fmt: skip
    content = [*long, *rows[5:], *twins]
    job = make_job(tmp_path / "out", start, content, stage="rm", **OPTIONS)
    trainer, held_out = trainer_of(job)
    (warning,) = [event for event in of(job, "warning") if event["code"] == "overlong"]
    assert warning["text"] == "5 of 75 pairs are longer than 96 tokens and were dropped"
    assert trainer.n_rows + len(held_out.pairs) == 70
    assert 0 < len(held_out.pairs) < 30
    assert len(held_out.pairs) % 2 == 0  # a twin has the same prompt, so it is where the other is
    reordered = make_job(tmp_path / "reordered", start, content[::-1], stage="rm", **OPTIONS)
    assert {pair.chosen for pair in trainer_of(reordered)[1].pairs} == {pair.chosen for pair in held_out.pairs}


def test_a_reward_model_learns_is_measured_and_survives_a_kill(start: Path, tmp_path: Path) -> None:
    whole, killed = (job_of(tmp_path / name, start, 80, save=SaveRule(steps=4)) for name in ("whole", "killed"))
    assert run(whole, WORKER) == 0, log_of(whole)
    assert run(killed, WORKER, fault="state-renamed") == -9
    assert run(killed, WORKER) == 0, log_of(killed)
    assert digests(killed) == digests(whole)
    assert curve(killed) == curve(whole)
    first, last = of(whole, "checkpoint")[0], of(whole, "checkpoint")[-1]
    assert last["held_out_accuracy"] == 1.0
    assert last["held_out_margin"] > first["held_out_margin"]
    assert {"accuracy", "margin"} <= set(of(whole, "step")[0])
    facts = json.loads((whole.out / last["path"] / "evalsuite.json").read_text())
    assert facts["metrics"]["held_out_margin"] == last["held_out_margin"]
    assert facts == {**facts, "stage": "rm", "digest": last["digest"]}


def test_a_published_reward_model_gives_the_rewards_that_were_measured(start: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    job = job_of(tmp_path / "out", start, lora={"r": 4})
    assert run(job, WORKER) == 0, log_of(job)
    event = of(job, "checkpoint")[-1]
    model = AutoModelForSequenceClassification.from_pretrained(job.out / event["path"])
    _, held_out = trainer_of(job)
    margins = [model(torch.tensor([pair.chosen])).logits - model(torch.tensor([pair.rejected])).logits
               for pair in held_out.pairs]  # fmt: skip
    assert float(torch.cat(margins).detach().mean()) == pytest.approx(event["held_out_margin"], abs=1e-5)


def test_a_reward_model_cannot_be_promoted(start: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path / "out", start)
    assert run(job, WORKER) == 0, log_of(job)
    (folder,) = [job.out / event["path"] for event in of(job, "checkpoint") if event["step"] == 4]
    with pytest.raises(EvalsuiteError, match="a reward model has no text to score"):
        promote(Registry(tmp_path / "registry"), folder)


def test_the_plugin_is_found_by_name_and_plans() -> None:
    trainer = find_trainer("rm")
    assert isinstance(trainer, RM)
    options = {"lr": "3e-6", "epochs": 1, "batch": 256, "max_length": 2048, "weight_decay": 0.01, "held_out": 0}
    plan = trainer.plan(parse(RMOptions, options, "options"), PlanFacts(rows=271_409))
    assert (plan.steps, plan.warmup_steps) == (1_061, 0)  # ceil(271,409 / 256)
