"""Supervised fine-tuning: loss and gradient by hand, however a step is packed, cut and spread; LoRA; processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evalsuite.checkpoint import open_checkpoint
from evalsuite.errors import CheckpointError
from evalsuite.trainers import TrainJob, parse
from evalsuite.trainers.planning import PlanFacts
from tests.train_plugins.runs import curve, digests, judge, log_of, make_job, make_start, of, run, sft_rows, warm
from train_plugins import tokenising
from train_plugins.chat import IGNORED, load_tokenizer
from train_plugins.order import Order
from train_plugins.settings import SFTOptions
from train_plugins.sft import SFT, worker_environment

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from train_plugins import sft_worker  # noqa: E402  (imports TRL)
from train_plugins.driving import Step  # noqa: E402
from train_plugins.worker import Run, main  # noqa: E402

WORKER = partial(main, SFTOptions, sft_worker.work)
FIRST = tuple(range(8))  # the rows of the step that is looked at


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(make_start(tmp_path_factory.mktemp("start") / "tiny"))


def trainer_of(job: TrainJob) -> Any:
    return sft_worker.make_trainer(Run(job, parse(SFTOptions, job.options, "options")))


def gradient(trainer: Any, steps: Sequence[Step]) -> tuple[float, Any]:
    """(loss, gradient as one vector) of a step, the shares of all processes one after another and averaged."""
    trainer.model.zero_grad()
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    losses = [float(trainer.training_step(trainer.model, step)) for step in steps]
    vector = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    return sum(losses) / len(steps), vector / len(steps)


def plain(trainer: Any, rows: Sequence[int]) -> tuple[float, Any, int]:
    """(loss, gradient, label tokens) of examples one by one: the sum of -log p over label tokens / their number."""
    trainer.model.zero_grad()
    total, n = torch.zeros(()), 0
    for example in (trainer._feed.examples[i] for i in rows):
        ids = torch.tensor([example.ids])
        logprobs = trainer.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        for place, label in enumerate(example.labels[1:]):
            if label != IGNORED:
                total = total - logprobs[place, label]
                n += 1
    (total / n).backward()
    return float(total.detach() / n), torch.cat([p.grad.flatten() for p in trainer.model.parameters()]), n


CUTS: dict[str, tuple[dict[str, Any], int]] = {
    # options, processes
    "packed into short rows": ({"pack_tokens": 96}, 1),
    "packed, one row a pass": ({"pack_tokens": 96, "per_device_batch": 1}, 1),
    "packed into one row": ({"pack_tokens": 1000}, 1),
    "padded, all in one pass": ({"packing": "none", "per_device_batch": 8}, 1),
    "padded, one example a pass": ({"packing": "none", "per_device_batch": 1}, 1),
    "packed, on 2 processes": ({"pack_tokens": 96, "per_device_batch": 1}, 2),
    "padded, on 4 processes": ({"packing": "none", "per_device_batch": 2}, 4),
    "packed into one row, on 2 processes": ({"pack_tokens": 1000}, 2),  # the second has nothing to do
}


@pytest.mark.parametrize("case", CUTS)
def test_a_step_has_the_loss_and_the_gradient_of_its_tokens_however_it_is_cut(
    case: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, processes = CUTS[case]
    trainer = trainer_of(make_job(tmp_path / "out", start, sft_rows(), **options))
    loss, expected, n = plain(trainer, FIRST)
    steps = [trainer._feed(FIRST, rank, processes) for rank in range(processes)]
    assert {step.n_items for step in steps} == {n}
    assert len({len(step.passes) for step in steps}) == 1
    assert sum(len(step.passes) for step in steps) > 1 or options.get("per_device_batch") != 1
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", processes)
    found, vector = gradient(trainer, steps)
    assert found == pytest.approx(loss, abs=1e-6)
    assert (vector - expected).abs().max() < 1e-6


def test_the_loss_of_trl_is_ours(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the loss is TRL's."""
    trainer = trainer_of(make_job(tmp_path / "out", start, sft_rows(), packing="none", per_device_batch=2))
    step = trainer._feed(FIRST, 0, 1)
    loss, vector = gradient(trainer, [step])
    monkeypatch.setattr(sft_worker, "has_accelerator", lambda: True)
    theirs, their_vector = gradient(trainer, [step])
    assert theirs == pytest.approx(loss, abs=1e-6)
    assert (vector - their_vector).abs().max() < 1e-6


def test_six_steps_end_with_the_weights_of_trl_on_the_same_order(start: Path, tmp_path: Path) -> None:
    """TRL from conversations on: its tokenisation and labels, padded, 4 passes of 2; ours packed. 3 steps an epoch."""
    from datasets import Dataset
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    rows = sft_rows(24)
    job = make_job(tmp_path / "out", start, rows, lr=1e-3)
    assert run(job, WORKER) == 0, log_of(job)
    order = Order(24, 8, [(0, job.seed)])

    class InOurOrder(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return [row for step in range(6) for row in order.rows(step)]

    config = SFTConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=6,
        learning_rate=1e-3, lr_scheduler_type="linear", warmup_steps=1, weight_decay=0.0, max_grad_norm=0.0, bf16=False,
        use_cpu=True, gradient_checkpointing=False, max_length=96, logging_steps=1, report_to=[], save_strategy="no",
        loss_type="nll", assistant_only_loss=True, optim="adamw_torch", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    content = Dataset.from_list([{"messages": row["messages"]} for row in rows])
    tokenizer = load_tokenizer(start, "tulu")
    theirs = InOurOrder(model=model, args=config, train_dataset=content, processing_class=tokenizer)
    theirs.train()
    losses = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    assert [event["loss"] for event in of(job, "step")] == pytest.approx(losses, abs=1e-5)
    for name, tensor in load_file(job.out / "checkpoints" / "step-000006" / "model.safetensors").items():
        assert (tensor - model.state_dict()[name]).abs().max() < 1e-6, name


def test_a_summed_loss_is_the_mean_times_the_number_of_label_tokens(start: Path, tmp_path: Path) -> None:
    trainer = trainer_of(make_job(tmp_path / "out", start, sft_rows(), loss_scale="sum"))
    loss, expected, n = plain(trainer, FIRST)
    found, vector = gradient(trainer, [trainer._feed(FIRST, 0, 1)])
    assert found == pytest.approx(n * loss, rel=1e-6)
    assert (vector - n * expected).abs().max() < 1e-5 * n


def test_packing_of_the_whole_data_set_loses_no_token(start: Path, tmp_path: Path) -> None:
    rows = sft_rows()
    packed = trainer_of(make_job(tmp_path / "packed", start, rows, packing="dataset"))
    exact = trainer_of(make_job(tmp_path / "exact", start, rows))
    assert packed.n_rows < exact.n_rows == 22
    whole = [trainer._feed(range(trainer.n_rows), 0, 1) for trainer in (packed, exact)]
    assert whole[0].n_tokens == whole[1].n_tokens
    assert whole[0].n_items == whole[1].n_items
    assert all("attention_mask" not in part for step in whole for part in step.passes)


def test_long_rows_are_cut_or_dropped_and_counted(start: Path, tmp_path: Path) -> None:
    rows = sft_rows()
    for overlong, left in (("cut", 22), ("drop", 19)):
        job = make_job(tmp_path / overlong, start, rows, max_length=64, overlong=overlong)
        assert trainer_of(job).n_rows == left
        (warning,) = of(job, "warning")
        assert warning["code"] == "overlong"
        assert warning["text"].startswith("3 of 22 rows are longer than 64 tokens and were ")


def test_many_rows_are_tokenised_on_several_cores_to_the_same(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(start, "tulu")
    conversations = [row["messages"] for row in sft_rows(30)]
    one = list(tokenising.tokenise_all(tokenizer, conversations, 64))
    monkeypatch.setattr(tokenising, "ENOUGH", 10)
    monkeypatch.setattr(tokenising, "CHUNK", 7)
    monkeypatch.setattr(tokenising.os, "sched_getaffinity", lambda _: {0, 1})
    assert list(tokenising.tokenise_all(tokenizer, conversations, 64)) == one
    assert len(one) == 30


# -- what is published --


def test_adapters_are_merged_and_the_merged_model_is_the_trained_one(start: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    job = make_job(tmp_path / "out", start, sft_rows(), lora={"r": 4, "alpha": 8.0}, save_adapter=True, epochs=1)
    assert run(job, WORKER) == 0, log_of(job)
    published = job.out / "checkpoints" / "step-000003"
    ids = torch.tensor([[4, 20, 21, 22, 5, 30]])
    base = AutoModelForCausalLM.from_pretrained(start)
    before = base(ids).logits
    trained = PeftModel.from_pretrained(base, published / "adapter").eval()(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(published)(ids).logits
    assert (merged.log_softmax(-1) - trained.log_softmax(-1)).abs().max() < 1e-5
    assert (merged - before).abs().max() > 1e-2
    assert open_checkpoint(published).n_parameters == open_checkpoint(start).n_parameters


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_in_bfloat16_is_the_trained_model_rounded(tied: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from train_plugins.models import write_model

    start = make_start(tmp_path / "start", tied=tied)
    trainer = trainer_of(make_job(tmp_path / "out", start, sft_rows(8)))
    folder = tmp_path / "written"
    folder.mkdir()
    write_model(trainer, trainer.processing_class, folder, "bfloat16")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.dtype == "bfloat16"
    assert checkpoint.n_parameters == open_checkpoint(start).n_parameters
    again = AutoModelForCausalLM.from_pretrained(folder)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(torch.bfloat16)), name
    assert next(iter(trainer.model.parameters())).dtype == torch.float32


def test_a_checkpoint_that_answers_otherwise_than_the_model_is_not_published(start: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from train_plugins.models import check_same, write_model

    trainer = trainer_of(make_job(tmp_path / "out", start, sft_rows(8), lora={"r": 4}))
    folder = tmp_path / "written"
    folder.mkdir()
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # zero in new adapters
    write_model(trainer, trainer.processing_class, folder, "float32")
    before = torch.random.get_rng_state()
    check_same(trainer, trainer.processing_class, folder, "float32")
    assert torch.equal(before, torch.random.get_rng_state())
    tensors = load_file(folder / "model.safetensors")
    base = load_file(start / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**tensors, name: base[name]}, folder / "model.safetensors", {"format": "pt"})  # one was not merged
    with pytest.raises(CheckpointError, match="off those of the model in memory"):
        check_same(trainer, trainer.processing_class, folder, "float32")


def test_a_tokenizer_without_padding_gets_it_and_the_model_a_row_for_it(tmp_path: Path) -> None:
    start = make_start(tmp_path / "start")
    config = json.loads((start / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (start / "tokenizer_config.json").write_text(json.dumps(config))
    content = json.loads((start / "tokenizer.json").read_text())
    pad = next(token for token in content["added_tokens"] if token["id"] == 0)
    pad["content"] = "<zero>"
    content["model"]["vocab"] = {("<zero>" if k == "<pad>" else k): v for k, v in content["model"]["vocab"].items()}
    (start / "tokenizer.json").write_text(json.dumps(content))
    trainer = trainer_of(make_job(tmp_path / "out", start, sft_rows(8)))
    assert trainer.processing_class.pad_token_id == 102
    assert trainer.model.get_input_embeddings().weight.shape[0] == 104  # 103 tokens, to a multiple of 8


# -- the plugin --


def test_the_plan_has_the_steps_of_tulu_3() -> None:
    options = parse(SFTOptions, {"lr": "5e-6", "epochs": 2, "batch": 128, "max_length": 4096, "weight_decay": 0.0,
                                 "warmup_ratio": 0.03}, "options")  # fmt: skip
    plan = SFT().plan(options, PlanFacts(rows=939_344))
    assert (plan.steps, plan.warmup_steps) == (14_678, 440)  # ceil(939,344 / 128) * 2; int(14,678 * 0.03)


@pytest.mark.parametrize(("threads", "variables"), [(None, {}), (3, {"OMP_NUM_THREADS": "3"})])
def test_threads_are_set_before_torch_is_imported(threads: int | None, variables: Mapping[str, str]) -> None:
    options = {"lr": 1, "epochs": 1, "batch": 1, "max_length": 8, "weight_decay": 0, "threads": threads}
    assert worker_environment(parse(SFTOptions, options, "options")) == variables


@pytest.mark.slow
def test_two_processes_train_what_one_trains_and_obey_at_the_same_step(start: Path, tmp_path: Path) -> None:
    """Both through the plugin, as the loop starts it: a subprocess, and two below accelerate (gloo)."""
    back = ("rollback", {"lr_scale": 0.5, "seed": 124})
    jobs = []
    for processes in (1, 2):
        job = make_job(tmp_path / f"on_{processes}", start, sft_rows(), mode="wait", processes=processes)
        thread = judge(job, {"step-000002": ("promote", None), "step-000004": back}, timeout_s=300)
        names = [checkpoint.path.name for checkpoint in SFT().train(job)]
        thread.join(5)
        assert names == ["step-000002", "step-000004", "step-000004-a1", "step-000006-a1"] == list(digests(job))
        jobs.append(job)
    assert [of(job, "start")[0]["processes"] for job in jobs] == [1, 2]
    points = [[(e["step"], e["loss"], e["grad_norm"], e["lr"], e["tokens"]) for e in of(job, "step")] for job in jobs]
    assert len(points[0]) == len(points[1]) == 4 + 4
    for one, two in zip(*points, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    from safetensors.torch import load_file

    one, two = (load_file(job.out / "checkpoints/step-000006-a1/model.safetensors") for job in jobs)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    states = sorted(path.name for path in (jobs[1].out / "state/step-000006-a1").iterdir())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(states)


def test_the_curve_of_a_run_falls(start: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out", start, sft_rows(), epochs=4)
    assert run(job, WORKER) == 0, log_of(job)
    losses = [loss for loss, *_ in curve(job).values()]
    assert losses[-1] < 0.75 * losses[0]
