"""Writes the group and the 57 subtask files of this folder: python benchmarks/mmlu_mc/generate.py"""

from pathlib import Path

SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
)
GROUP = """\
# Written by generate.py. MMLU, 5-shot, by log-likelihood of the letter (allenai/olmes `mmlu:mc::tulu`), macro average.
group: mmlu_mc
task:
{tasks}
aggregate_metric_list:
  - metric: acc
    aggregation: mean
    weight_by_size: false
metadata:
  version: 1
  split: development
  chat: true
  multiturn: true
  metric: acc
  aggregate: macro
  gate_cluster: category
  id: [question, choices]
  n_expected: 14042
  columns: [question, subject, choices, answer]
  dataset_revision: null
  license: MIT
  paper: "arXiv 2009.03300"
  upstream_sha256: {{instruction: c1c58478d384375d}}
"""
SUBTASK = """\
# Written by generate.py.
include: _subtask
task: mmlu_mc_{subject}
process_docs: !function verify.docs_{subject}
fewshot_config:
  sampler: first_n
  split: dev
  process_docs: !function verify.shots_{subject}
"""


def files() -> dict[str, str]:
    """File name to text."""
    names = "\n".join(f"  - mmlu_mc_{s}" for s in SUBJECTS)
    subtasks = {f"mmlu_mc_{s}.yaml": SUBTASK.format(subject=s) for s in SUBJECTS}
    return {"mmlu_mc.yaml": GROUP.format(tasks=names)} | subtasks


if __name__ == "__main__":
    for name, text in files().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
