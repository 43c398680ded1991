"""Model folders of a few hundred bytes that pass every check, and programs that write them as trainers do. No torch."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

PYTHON = sys.executable


def weights(value: float, name: str = "w") -> bytes:
    """A safetensors file with one float32 tensor of two elements, (value, 1)."""
    header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + struct.pack("<2f", value, 1.0)


def model_files(value: float) -> dict[str, bytes]:
    tokenizer = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}
    return {
        "config.json": json.dumps({"model_type": "llama", "vocab_size": 2}).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages[0]['content'] }}",
        "model.safetensors": weights(value),
    }


def write_model(folder: Path, value: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model_files(value).items():
        (folder / name).write_bytes(content)
    return folder


# A trainer that knows nothing of us: writes folders one file after another with pauses, goes on after the newest whole
# one when it is started again. argv: folder, number of checkpoints, seconds between two files.
PROGRAM = """
import json, pathlib, sys, time
sys.path.insert(0, {root!r})
from tests.evalsuite.loop.folders import model_files
out, n, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
with open(out / "starts.txt", "a") as file:
    file.write("started\\n")
for i in range(1, n + 1):
    folder = out / f"checkpoint-{{i * 10}}"
    if (folder / "model.safetensors").exists() and (folder / "done").exists():
        continue
    folder.mkdir(exist_ok=True)
    for name, content in model_files(float(i)).items():
        half = len(content) // 2
        with open(folder / name, "wb") as file:
            file.write(content[:half]); file.flush()
            time.sleep(pause)
            file.write(content[half:])
    (folder / "done").touch()
"""


def program(folder: Path) -> Path:
    root = str(Path(__file__).resolve().parents[3])
    path = folder / "train.py"
    path.write_text(PROGRAM.format(root=root))
    return path
