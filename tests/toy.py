"""Benchmark folders made on the spot, with rows of their own: for tests of what stands around a benchmark."""

from __future__ import annotations

from pathlib import Path

VERIFY = '''
"""Toy: the response must contain the answer."""
import datasets
from evalsuite.types import Score
from evalsuite.verify.lmeval import as_process_choices, as_process_results

def dataset(**_):
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i),
             "kind": "even" if i % 2 == 0 else "odd", "choices": [str(2 * i), str(2 * i + 1)]} for i in range(N)]
    return {"test": datasets.Dataset.from_list(rows)}

def prompt(doc):
    return doc["question"]

def answer(doc):
    return doc["answer"]

def choices(doc):
    return doc["choices"]

def gold_response(doc):
    return doc["answer"]

def gold_totals(doc):
    return [0.0, -1.0]

def verify(response, doc):
    if isinstance(response, str):
        if "raise" in response:
            raise RuntimeError("the verifier has a bug")
        return Score(float(doc["answer"] in response.split()), extracted=response[:20])
    return Score(float(response[0] == max(response)))

process_results = as_process_results(verify, "exact_match")
process_choices = as_process_choices(verify, "acc")
'''
GENERATE = """
task: {name}
custom_dataset: !function verify.dataset
test_split: test
output_type: generate_until
doc_to_text: !function verify.prompt
doc_to_target: !function verify.answer
num_fewshot: 0
process_results: !function verify.process_results
generation_kwargs: {{until: [], max_gen_toks: 16, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1, split: development, chat: {chat}, metric: exact_match, id: id, category: kind, n_expected: {n}}}
"""
CHOOSE = """
task: {name}
custom_dataset: !function verify.dataset
test_split: test
output_type: multiple_choice
doc_to_text: !function verify.prompt
doc_to_target: 0
doc_to_choice: !function verify.choices
num_fewshot: 0
process_results: !function verify.process_choices
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1, split: development, chat: {chat}, metric: acc, id: [question], n_expected: {n}}}
"""


def make_benchmark(root: Path, name: str, n: int = 20, *, choices: bool = False, chat: bool = False) -> Path:
    """`<root>/<name>/` with n generated rows; returns the root, which is what --benchmarks takes."""
    folder = root / name
    folder.mkdir(parents=True)
    yaml = CHOOSE if choices else GENERATE
    (folder / f"{name}.yaml").write_text(yaml.format(name=name, n=n, chat=str(chat).lower()))
    (folder / "verify.py").write_text(VERIFY.replace("range(N)", f"range({n})"))
    (folder / "README.md").write_text(f"# {name}\n")
    field = '"totals": [0.0, -1.0]' if choices else '"response": "4"'
    (folder / "cases.jsonl").write_text(f'{{{field}, "doc": {{"answer": "4"}}, "value": 1.0}}\n')
    return root
