"""Checkpoints: the digest follows the content and nothing else, and every broken folder is one clear line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.checkpoint import memory as filefacts
from evalsuite.checkpoint.weights import examine_weights, read_tensors
from evalsuite.errors import CheckpointError
from tests.tiny import Shape, make_checkpoint, make_model

Damage = Callable[[Path], object]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in one file."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", Shape(600, 32, 2, 2, 1, 64))


@pytest.fixture(scope="session")
def sharded_source(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint in several shards with an index."""
    folder = shutil.copytree(source, tmp_path_factory.mktemp("sharded") / "model")
    (folder / "model.safetensors").unlink()
    make_model(Shape(600, 32, 2, 2, 1, 64)).save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) >= 3
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "model")


@pytest.fixture
def sharded(sharded_source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sharded_source, tmp_path / "sharded")


def edit(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content.pop(key, None) if value is None else content.update({key: value})
    path.write_text(json.dumps(content))


def cut(path: Path, keep: float) -> None:
    """Keeps the first part of a file, as a save that was killed does."""
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep))


def poke(path: Path, index: int, value: int, width: int = 4) -> str:
    """Overwrites element `index` (from the end) of the first float tensor with a bit pattern; returns its name."""
    tensor = read_tensors(path)[0]
    with path.open("r+b") as file:
        file.seek(tensor.end - (index + 1) * width)
        file.write(value.to_bytes(width, "little"))
    return tensor.name


def test_a_whole_checkpoint_opens(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.path, checkpoint.name) == (folder, "model")
    assert (checkpoint.dtype, checkpoint.architecture) == ("float32", "LlamaForCausalLM")
    assert checkpoint.has_chat_template
    assert checkpoint.n_parameters == sum(p.numel() for p in make_model(Shape(600, 32, 2, 2, 1, 64)).parameters())
    assert set(checkpoint.files) == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    }  # fmt: skip
    assert len(checkpoint.digest) == 64


def test_a_sharded_checkpoint_opens_and_counts_the_same_parameters(sharded: Path, folder: Path) -> None:
    one, several = open_checkpoint(folder), open_checkpoint(sharded)
    assert several.n_parameters == one.n_parameters
    assert "model.safetensors.index.json" in several.files
    assert several.digest != one.digest  # other files, though they hold the same weights


def test_without_a_dtype_in_the_config_the_stored_one_is_told(folder: Path) -> None:
    edit(folder / "config.json", dtype=None, torch_dtype=None)
    assert open_checkpoint(folder).dtype == "float32"
    edit(folder / "config.json", torch_dtype="bfloat16")
    assert open_checkpoint(folder).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("run-a/checkpoint-500", "run-a/checkpoint-500"),
        ("run-a/step_20", "run-a/step_20"),
        ("run-a/final", "run-a/final"),
        ("loop/dpo/checkpoints/step-000100-a1", "dpo/step-000100-a1"),
        ("run-a/tulu-8b", "tulu-8b"),
        ("models--org--tulu/snapshots/0123abcd", "org/tulu"),
    ],
)
def test_the_name_of_a_step_includes_its_run(source: Path, tmp_path: Path, path: str, name: str) -> None:
    shutil.copytree(source, tmp_path / path)
    assert open_checkpoint(tmp_path / path).name == name


def test_a_dot_is_named_after_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert open_checkpoint(".").name == "model"


def test_the_digest_does_not_know_path_name_or_age(folder: Path, tmp_path: Path) -> None:
    digest = open_checkpoint(folder).digest
    copied = shutil.copytree(folder, tmp_path / "elsewhere" / "other-name")
    os.utime(copied / "model.safetensors", (1, 1))
    assert open_checkpoint(copied).digest == digest
    assert open_checkpoint(folder.rename(tmp_path / "renamed")).digest == digest
    (tmp_path / "link").symlink_to(tmp_path / "renamed")
    assert open_checkpoint(tmp_path / "link").digest == digest


def test_one_changed_byte_in_the_weights_changes_the_digest(folder: Path) -> None:
    digest = open_checkpoint(folder).digest
    poke(folder / "model.safetensors", 5, 0x3F800000)  # 1.0
    assert open_checkpoint(folder).digest != digest


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
)
def test_every_file_that_can_change_an_answer_changes_the_digest(folder: Path, name: str) -> None:
    digest = open_checkpoint(folder).digest
    (folder / name).write_text((folder / name).read_text() + "\n")
    assert open_checkpoint(folder).digest != digest


def test_an_added_template_changes_the_digest(folder: Path) -> None:
    digest = open_checkpoint(folder).digest
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    assert open_checkpoint(folder).digest != digest


def test_files_that_cannot_change_an_answer_leave_the_digest(folder: Path) -> None:
    digest = open_checkpoint(folder).digest
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "trainer_state.json",
        "README.md",
    ):
        (folder / name).write_bytes(b"not a model")
    (folder / "runs").mkdir()
    (folder / "code.py").write_text("x = 1")
    assert open_checkpoint(folder).digest == digest
    assert open_checkpoint(folder, trust_remote_code=True).digest != digest  # now that code is part of the model


def test_code_is_part_of_the_digest_only_when_it_may_run(folder: Path) -> None:
    (folder / "modeling.py").write_text("x = 1")
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    before = open_checkpoint(folder, trust_remote_code=True)
    (folder / "modeling.py").write_text("x = 2")
    assert open_checkpoint(folder, trust_remote_code=True).digest != before.digest


def delete(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name: str, text: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return damage


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


ADAPTER = write("adapter_config.json", '{"base_model_name_or_path": "org/base"}')

DAMAGES: dict[str, tuple[Damage, str]] = {
    "no config": (delete("config.json"), r"half-written or no checkpoint, there is no config\.json"),
    "empty config": (write("config.json", ""), r"config\.json: not valid JSON"),
    "cut config": (lambda f: cut(f / "config.json", 0.5), r"config\.json: not valid JSON .*line \d+"),
    "list as config": (write("config.json", "[]"), r"config\.json: expected a JSON object, found list"),
    "foreign config": (write("config.json", "{}"), r"config\.json: no 'model_type'"),
    "cut generation config": (lambda f: cut(f / "generation_config.json", 0.5), r"generation_config\.json: not valid"),
    "cut tokenizer config": (lambda f: cut(f / "tokenizer_config.json", 0.5), r"tokenizer_config\.json: not valid"),
    "cut tokenizer": (lambda f: cut(f / "tokenizer.json", 0.9), r"tokenizer\.json: not valid JSON"),
    "hollow tokenizer": (write("tokenizer.json", '{"model": {}}'), r"tokenizer\.json: no vocabulary"),
    "no tokenizer": (delete("tokenizer.json"), r"no tokenizer .*tokenizer\.save_pretrained"),
    "no weights": (delete("model.safetensors"), r"no weights \(expected model\.safetensors or its shards\)"),
    "empty weights": (write("model.safetensors", ""), r"half-written weights, its header is cut off"),
    "cut header": (lambda f: cut(f / "model.safetensors", 0.001), r"half-written weights, its header is cut off"),
    "cut data": (lambda f: cut(f / "model.safetensors", 0.7), r"half-written weights, [\d,]+ bytes where .* promises"),
    "cut by a byte": (lambda f: cut(f / "model.safetensors", 0.999999), r"bytes where its header promises"),
    "no header": (write("model.safetensors", "\x40" + "\0" * 7 + "x" * 64), r"not a safetensors header"),
    "left-over": (write("model.safetensors.tmp", ""), r"model\.safetensors\.tmp: half-written checkpoint"),
    "download": (write(".cache/huggingface/download/a.incomplete", ""), r"a\.incomplete: half-written checkpoint"),
    "pickled": (to_pickle, r"pytorch_model\.bin: pickled weights can run code.*--allow-pickle"),
    "code": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "m.M"}), r"config\.json: .*--trust-remote-code"),
    "tokenizer code": (
        lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["m.M", None]}),
        r"tokenizer_config\.json: .*--trust-remote-code",
    ),
    "small vocabulary": (
        lambda f: edit(f / "config.json", vocab_size=599),
        r"config\.json: vocab_size 599 is too small .* largest id is 599",
    ),
    "adapter alone": (both(ADAPTER, delete("config.json", "model.safetensors")), r"LoRA .* alone.*'org/base'.*merge"),
    "adapter with config": (both(ADAPTER, delete("model.safetensors")), r"LoRA adapter alone"),
    "adapter beside weights": (ADAPTER, r"adapter_config\.json: an adapter beside full weights"),
    "sharded state": (both(delete("config.json"), write("global_step9/x", "")), r"trainer's sharded states"),
    "gguf": (both(delete("config.json"), write("m.gguf", "")), r"GGUF files are not read"),
    "dangling link": (
        both(delete("model.safetensors"), lambda f: (f / "model.safetensors").symlink_to(f / "nowhere")),
        r"model\.safetensors: cannot be read \(No such file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_broken_checkpoint_is_one_line_naming_file_and_remedy(folder: Path, kind: str) -> None:
    damage, said = DAMAGES[kind]
    damage(folder)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert caught.value.exit_code == 2


SHARD_DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing shard": (
        lambda f: sorted(f.glob("model-*"))[1].unlink(),
        r"index\.json: half-written checkpoint, it names 1 shard\(s\) .*model-00002-of",
    ),
    "cut shard": (lambda f: cut(sorted(f.glob("model-*"))[1], 0.5), r"model-00002-of-\d+\.safetensors: half-written"),
    "no index": (delete("model.safetensors.index.json"), r"model-00001-of.*one shard of several but no model.*index"),
    "cut index": (lambda f: cut(f / "model.safetensors.index.json", 0.5), r"index\.json: not valid JSON"),
    "hollow index": (write("model.safetensors.index.json", "{}"), r"index\.json: no 'weight_map'"),
    "another save": (write("model.safetensors", ""), r"model\.safetensors: weights that .*index\.json does not name"),
    "stale shard": (write("model-00009-of-00009.safetensors", ""), r"model-00009-of-00009\.safetensors: weights that"),
    "swapped shards": (
        lambda f: shutil.copy(sorted(f.glob("model-*"))[0], sorted(f.glob("model-*"))[1]),
        r"model-00002-of-\d+\.safetensors: tensor '.*' is not in it, though the index says so",
    ),
    "outside": (
        write("model.safetensors.index.json", '{"weight_map": {"a": "../model.safetensors"}}'),
        r"shard\(s\) that are not in the folder \(\.\./model\.safetensors\)",
    ),
}


@pytest.mark.parametrize("kind", SHARD_DAMAGES)
def test_a_broken_sharded_checkpoint_names_the_shard(sharded: Path, kind: str) -> None:
    damage, said = SHARD_DAMAGES[kind]
    damage(sharded)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(sharded)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_shows_the_near_miss(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such checkpoint folder; did you mean 'model'\?"):
        open_checkpoint(folder.parent / "modle")
    with pytest.raises(CheckpointError, match="this is a file; a checkpoint is a folder"):
        open_checkpoint(folder / "config.json")


def test_a_hub_name_says_how_to_download_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"hf download org/model --local-dir model"):
        open_checkpoint("org/model")


def test_the_folder_of_a_run_points_at_its_checkpoints(folder: Path) -> None:
    folder.rename(folder.parent / "checkpoint-20")
    with pytest.raises(CheckpointError, match=r"the checkpoints are inside: checkpoint-20"):
        open_checkpoint(folder.parent)


def test_a_checkpoint_that_the_trainer_is_still_writing_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="half-written"):
        open_checkpoint(folder.rename(folder.parent / "tmp-checkpoint-20"))


def test_pickled_weights_open_when_allowed_and_are_not_unpickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (folder / "optimizer.pt").write_bytes(b"state")
    checkpoint = open_checkpoint(folder, allow_pickle=True)
    assert "pytorch_model.bin" in checkpoint.files
    assert "optimizer.pt" not in checkpoint.files
    assert checkpoint.n_parameters == 0


@pytest.mark.parametrize(
    "name", ["optimizer.bin", "adapter_model.bin", "adapter_model.safetensors", "training_args.bin"]
)
def test_other_state_alone_is_no_weights(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match="no weights"):
        open_checkpoint(folder, allow_pickle=True)


BAD = {
    "F64": (0x7FF8000000000000, 0xFFF0000000000000),
    "F32": (0x7FC00000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x7F800000),
    "F16": (0x7E00, 0xFC00, 0x7C00, 0xFFFF),
    "BF16": (0x7FC0, 0xFF80, 0x7F80, 0xFFFF),
    "F8_E5M2": (0x7C, 0xFC, 0x7F),
    "F8_E4M3": (0x7F, 0xFF),
}
FINE = {
    "F64": (0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF, 0x8000000000000000),
    "F32": (0x7F7FFFFF, 0xFF7FFFFF, 0x80000000, 1),
    "F16": (0x7BFF, 0xFBFF, 0x8000),
    "BF16": (0x7F7F, 0xFF7F, 0x8000),
    "F8_E5M2": (0x7B, 0xFB),
    "F8_E4M3": (0x7E, 0xFE),
    "I32": (-1 & 0xFFFFFFFF, 0x7FFFFFFF),
    "U8": (0xFF, 0x7F),
}
WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1, "I32": 4, "U8": 1}


def tensor_file(path: Path, dtype: str, patterns: list[int], n: int, odd_header: bool = False) -> Path:
    """Two tensors of n zeros, the second holding the patterns at its end. An odd header leaves the data unaligned."""
    width = WIDTH[dtype]
    half = n * width
    header = {
        "first": {"dtype": dtype, "shape": [n], "data_offsets": [0, half]},
        "second": {"dtype": dtype, "shape": [1, n], "data_offsets": [half, 2 * half]},
        "__metadata__": {"format": "pt"},
    }
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8 + (1 if odd_header else 0))
    data = bytearray(2 * half)
    for i, pattern in enumerate(patterns):
        data[len(data) - (i + 1) * width : len(data) - i * width] = pattern.to_bytes(width, "little")
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


@pytest.mark.parametrize("dtype", BAD)
@pytest.mark.parametrize("n", [7, 300_001])  # within one step of the scan, and over several
@pytest.mark.parametrize("odd_header", [False, True])
def test_every_nan_and_infinity_is_found_in_every_float_format(
    tmp_path: Path, dtype: str, n: int, odd_header: bool
) -> None:
    for pattern in BAD[dtype]:
        path = tensor_file(tmp_path / "w.safetensors", dtype, [*FINE[dtype], pattern], n, odd_header)
        assert examine_weights(path).not_finite == "second", hex(pattern)


@pytest.mark.parametrize("dtype", FINE)
def test_extreme_but_finite_numbers_pass(tmp_path: Path, dtype: str) -> None:
    from hashlib import sha256

    path = tensor_file(tmp_path / "w.safetensors", dtype, list(FINE[dtype]), 300_001)
    facts = examine_weights(path)
    assert facts.not_finite == ""
    assert facts.sha256 == sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_checkpoint_saved_with_a_nan_names_file_and_tensor(sharded: Path, value: float) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shard = sorted(sharded.glob("model-*.safetensors"))[-1]
    tensors = load_file(shard)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[-1] = value
    save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, shard)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(sharded)
    assert str(caught.value).startswith(f"{shard}: NaN or Inf in tensor {name!r}")


def test_an_empty_tensor_and_a_file_without_tensors_are_read(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"none": np.zeros((0, 4), np.float32), "one": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    assert examine_weights(tmp_path / "a.safetensors").not_finite == ""
    save_file({}, tmp_path / "b.safetensors")
    assert read_tensors(tmp_path / "b.safetensors") == ()
    assert len(examine_weights(tmp_path / "b.safetensors").sha256) == 64


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},  # too few bytes for its shape
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},  # a hole before it
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"},  # two in one place
        {"a": {"shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}},
        {"a": 1},
        [],
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, header: Any) -> None:
    raw = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(CheckpointError, match="half-written weights"):
        read_tensors(tmp_path / "w.safetensors")


class Counting:
    """Counts how often files are really read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.read: list[str] = []
        monkeypatch.setenv("EVALSUITE_CACHE", str(cache))
        monkeypatch.setattr(filefacts, "LARGE", 10_000)  # bytes
        monkeypatch.setattr(filefacts, "RACY_S", 0.0)  # nobody can make the time of the last change an old one
        monkeypatch.setattr("evalsuite.checkpoint.examine_weights", self)

    def __call__(self, path: Path) -> Any:
        self.read.append(path.name)
        return examine_weights(path)


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_large_files_are_read_once_until_they_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch, tmp_path / "cache")
    weights = folder / "model.safetensors"
    age(weights, 60)
    first = open_checkpoint(folder)
    assert open_checkpoint(folder) == first
    assert counting.read == ["model.safetensors"]
    poke(weights, 0, 0x3F800000)
    age(weights, 30)
    second = open_checkpoint(folder)
    assert second.digest != first.digest
    assert len(counting.read) == 2
    name = poke(weights, 0, 0x7FC00000)  # NaN
    age(weights, 20)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=f"NaN or Inf in tensor '{name}'"):
            open_checkpoint(folder)
    assert len(counting.read) == 3  # a bad verdict is remembered too


def test_a_file_that_was_just_written_is_not_remembered(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock has ticks: another write within the same one would look like the same file."""
    counting = Counting(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(filefacts, "RACY_S", 60.0)
    age(folder / "model.safetensors", 600)
    open_checkpoint(folder)
    open_checkpoint(folder)
    assert len(counting.read) == 2


def test_weights_rewritten_in_place_are_read_again_though_their_time_was_put_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch, tmp_path / "cache")
    weights = folder / "model.safetensors"
    age(weights, 60)
    before, first = weights.stat(), open_checkpoint(folder)
    poke(weights, 0, 0x3F800000)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = weights.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert open_checkpoint(folder).digest != first.digest
    assert len(counting.read) == 2


@pytest.mark.parametrize("damage", ["unwritable", "torn"])
def test_a_useless_cache_costs_only_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    counting = Counting(monkeypatch, tmp_path / "cache")
    age(folder / "model.safetensors", 60)
    if damage == "unwritable":
        (tmp_path / "cache").write_text("a file where the folder should be")
    first = open_checkpoint(folder)
    if damage == "torn":
        (entry,) = [p for p in (tmp_path / "cache" / "files").iterdir() if "safetensors" in p.read_text()]
        entry.write_text(entry.read_text()[:40])
    assert open_checkpoint(folder) == first
    assert len(counting.read) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counting(monkeypatch, tmp_path / "cache")

    def trainer_saves_meanwhile(path: Path) -> Any:
        found = examine_weights(path)
        age(path, 5)
        return found

    monkeypatch.setattr("evalsuite.checkpoint.examine_weights", trainer_saves_meanwhile)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        open_checkpoint(folder)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVALSUITE_CACHE", str(tmp_path / "own"))
    assert filefacts.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("EVALSUITE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert filefacts.cache_folder() == tmp_path / "xdg" / "evalsuite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert filefacts.cache_folder() == tmp_path / ".cache" / "evalsuite"


def test_opening_imports_neither_torch_nor_transformers(folder: Path) -> None:
    code = (
        "import sys; from evalsuite.checkpoint import open_checkpoint; open_checkpoint(sys.argv[1]); "
        "print([m for m in ('torch', 'transformers', 'safetensors', 'tokenizers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
