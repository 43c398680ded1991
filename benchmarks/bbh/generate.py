"""Writes the group and the 27 subtask files of this folder: python benchmarks/bbh/generate.py"""

from pathlib import Path

from evalsuite.exemplars import BBH_TASKS

GROUP = """\
# Written by generate.py. BIG-Bench Hard, 3-shot chain of thought as turns (allenai/olmes `bbh:cot-v1::tulu`).
group: bbh
task:
{tasks}
aggregate_metric_list:
  - metric: exact_match
    aggregation: mean
    weight_by_size: true
metadata:
  version: 1
  split: development
  chat: true
  multiturn: true
  metric: exact_match
  aggregate: micro
  gate_cluster: category
  id: [input]
  n_expected: 6511
  columns: [input, target]
  dataset_revision: null
  license: MIT
  paper: "arXiv 2210.09261"
  extraction: ladder
  quirks: [bbh-dead-letter-step, bbh-strict-eats-last]
  known_rejects: 18
"""
SUBTASK = """\
# Written by generate.py.
include: _subtask
task: bbh_{task}
dataset_name: {task}
process_docs: !function verify.docs_{task}
fewshot_config:
  sampler: first_n
  samples: !function verify.shots_{task}
"""


def files() -> dict[str, str]:
    """File name to text."""
    names = "\n".join(f"  - bbh_{task}" for task in BBH_TASKS)
    return {"bbh.yaml": GROUP.format(tasks=names)} | {f"bbh_{t}.yaml": SUBTASK.format(task=t) for t in BBH_TASKS}


if __name__ == "__main__":
    for name, text in files().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
