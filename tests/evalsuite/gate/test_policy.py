"""Policy files: what is shipped can be read, what is laid over it counts, and everything wrong is said at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from evalsuite.errors import PolicyError, UsageError
from evalsuite.gate.policy import Floor, KRule, MustImprove, Notify, Policy, Rule, Samples, Target
from evalsuite.gate.reading import known_policies, load_policy
from evalsuite.suite import Suite, load_suite

DEV = load_suite("tulu3-dev")
SAFETY = ("harmbench", "xstest", "wildguardtest", "do_anything_now", "jailbreaktrigger", "wildjailbreak")
# The example of gate.md §6, but for `prefetch`, and with a claim.
EXAMPLE = """
version: 1
suite: tulu3-dev
compare: {champion: champion, anchor: anchor}
method: {test: group_sequential, looks: 10, alpha: 0.05, beta: 0.06, spending: {clear: pocock, block: obf}}
samples: {default: 1, temperature: 0.7, top_p: 0.95, when: [{n_lt: 1000, k: 8}, {n_lt: 2600, k: 4}]}
plan: {disagreement: 0.15, disagreement_floor: 0.05, icc: 0.01, min_power: 0.8}
must_not_regress:
  default: {margin: calibrated, margin_min: 0.01, margin_max: null, tier: standard, on_inconclusive: hold}
  gsm8k: {margin: 0.03, tier: critical}
  drop: {cluster: passage}
  popqa: {tier: advisory}
must_improve: {any_of: [{metric: macro, min_gain: 0.0}, {metric: math, min_gain: 0.01}], alpha: 0.05, spending: t(t+1)}
safety:
  harmbench: {floor: 0.80}
  xstest: {floor: 0.85, margin: 0.02}
slices: {require: [], min_items: 50, on_fail: warn}
decontamination: {required: true, max_eval_fraction: 0.02, clean_subset: warn}
infra: [loads, generates, chat_template, finite_weights]
errors: {missing: block, judge_failed_rate_max: 0.005, pair_overlap_min: 0.99, truncated_delta_max: 0.02}
unseen: {only_in: release, per_candidate: 1, per_90_days: 3, mechanism: ladder, eta: auto}
override: {allow: [standard, advisory], never: [safety, decontamination]}
notify: [{webhook: env:GATE_WEBHOOK}, {file: results/gate.md}]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return str(path)


def problems(source: str | None, sets: tuple[str, ...] = (), suite: Suite | None = None) -> list[str]:
    """The lines of the refusal, without the place they start with."""
    with pytest.raises(PolicyError) as caught:
        load_policy(source, sets, suite=suite)
    return [line.partition(": ")[2] for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("name", known_policies())
def test_every_shipped_policy_fits_its_suite(name: str) -> None:
    policy = load_policy(name)
    assert load_policy(name, suite=load_suite(policy.suite)).name == name


def test_the_shipped_default_says_what_the_dataclasses_say_plus_the_k_plan() -> None:
    k_plan = (KRule(1000, 8), KRule(2600, 4))
    assert load_policy() == replace(Policy(), samples=Samples(when=k_plan))


def test_the_example_of_the_specification_is_read(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, EXAMPLE), suite=DEV)
    assert policy.rule("gsm8k") == Rule(margin=0.03, tier="critical")
    assert policy.rule("drop") == Rule(cluster="passage")
    assert policy.rule("popqa") == Rule(tier="advisory")
    assert policy.rule("bbh") == Rule()
    assert policy.safety == {"harmbench": Floor(0.8), "xstest": Floor(0.85)}
    assert policy.rule("xstest") == Rule(margin=0.02)  # the margin of the same entry
    assert policy.must_improve == MustImprove("any_of", (Target("macro"), Target("math", 0.01)), 0.05)
    assert policy.notify == (Notify("webhook", "env:GATE_WEBHOOK"), Notify("file", "results/gate.md"))
    assert policy.decontamination.required
    assert policy.unseen.eta is None


@pytest.mark.parametrize("source", [EXAMPLE, "suite: tulu3-dev\nmust_improve: {all_of: [{metric: gsm8k}]}\n"])
def test_the_merged_form_reads_back_as_the_same_policy(tmp_path: Path, source: str) -> None:
    first = load_policy(written(tmp_path, source), suite=DEV)
    again = load_policy(written(tmp_path, yaml.safe_dump(first.as_json())), suite=DEV)
    assert again == replace(first, name=again.name)
    assert again.digest == first.digest


def test_the_digest_is_the_sha256_of_the_canonical_merged_form() -> None:
    policy = load_policy("tulu3", suite=DEV)
    text = json.dumps(policy.as_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert policy.digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_tells_what_is_demanded_and_not_how_it_was_written(tmp_path: Path) -> None:
    plain = load_policy("default")
    assert load_policy(written(tmp_path, "name: mine\nmethod: {alpha: 0.050, looks: 10}\n")).digest == plain.digest
    assert load_policy("default", ["method.looks=10"]).digest == plain.digest
    assert load_policy("default", ["method.looks=9"]).digest != plain.digest
    # 1 and 1.0 are the same temperature, and different texts in JSON
    assert (
        load_policy("default", ["samples.temperature=1"]).digest
        == load_policy("default", ["samples.temperature=1.0"]).digest
    )


def test_settings_lie_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = written(tmp_path, "method: {looks: 5, alpha: 0.1}\nmust_not_regress: {gsm8k: {margin: 0.03}}\n")
    sets = ("method.looks=4", "must_not_regress.gsm8k.tier=critical", "must_not_regress.default.margin_min=0.02")
    policy = load_policy(path, sets)
    assert (policy.method.looks, policy.method.alpha, policy.method.beta) == (4, 0.1, 0.06)
    assert policy.rule("gsm8k") == Rule(margin=0.03, margin_min=0.02, tier="critical")
    assert policy.settings == sets


def test_without_a_name_the_policy_is_that_of_the_suite() -> None:
    assert load_policy(suite=DEV).name == "default"
    assert load_policy(suite=load_suite("demo")).name == "demo"
    safety = load_policy(suite=load_suite("tulu3-safety"))
    assert (safety.name, safety.suite) == ("default", "tulu3-safety")


def test_columns_and_groups_become_benchmarks_and_a_member_overrules_its_group(tmp_path: Path) -> None:
    text = """
    must_not_regress:
      harmbench: {tier: standard}
      safety: {tier: critical, margin: 0.1}
      mmlu: {cluster: subject}
    safety: {safety: {floor: 0.7}, xstest: {ceiling: 0.99}}
    must_improve: {all_of: [{metric: mmlu}, {metric: safety}, {metric: macro}]}
    """
    policy = load_policy(written(tmp_path, text), suite=DEV)
    assert set(policy.rules) == {*SAFETY, "mmlu_cot"}
    assert policy.rule("harmbench") == Rule(margin=0.1, tier="standard")
    assert policy.rule("xstest") == Rule(margin=0.1, tier="critical")
    assert policy.must_improve is not None
    assert [t.metric for t in policy.must_improve.targets] == ["mmlu_cot", "safety", "macro"]
    assert policy.safety == {name: Floor(0.7) for name in SAFETY} | {"xstest": Floor(0.7, 0.99)}


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = """
    version: 2
    metod: {looks: 3}
    method: {test: groupsequential, looks: 51, alpha: .nan, spending: {clear: pocok}}
    samples: {default: 0, when: [{n_lt: 10}, 3]}
    plan: {disagreement: 0.01}
    must_not_regress: {gsm8k: {margin: 0}, math: {margin: 1, tier: importent}, bbh: 3}
    must_improve: {any_of: [{metric: macro}], alpha: 0.06}
    safety: {xstest: {floor: 1.0}, harmbench: {floor: 0.9, ceiling: 0.8}, wildguardtest: {}}
    slices: {require: [bbh]}
    infra: [load]
    override: {allow: [critical]}
    notify: [{webhook: "https://a.org/x"}, {webhook: env:A, file: b}]
    """
    assert problems(written(tmp_path, text)) == [
        "version is 2; use 1",
        "infra is ['load']; use a list of loads, generates, chat_template, finite_weights; did you mean 'loads'?",
        "metod: unknown key, its value is {'looks': 3}; did you mean 'method'?",
        "must_not_regress.gsm8k.margin is 0; use a number above 0 and below 1, or calibrated",
        "must_not_regress.math.margin is 1; use a number above 0 and below 1, or calibrated",
        "must_not_regress.math.tier is 'importent'; use critical, standard or advisory",
        "must_not_regress.bbh is 3; use a mapping",
        "safety.xstest.floor is 1.0; use a number above 0 and below 1, or null",
        "safety.harmbench.floor is 0.9; use a floor below the ceiling, 0.8",
        "safety.wildguardtest is {}; use floor, ceiling or both",
        "method.test is 'groupsequential'; use group_sequential, betting or fixed; did you mean 'group_sequential'?",
        "method.looks is 51; use a whole number from 1 to 50",
        "method.alpha is nan; use a number above 0 and below 0.5",
        "method.spending.clear is 'pocok'; use pocock or obf; did you mean 'pocock'?",
        "samples.default is 0; use a whole number of at least 1",
        "samples.when[0].k is missing",
        "samples.when[1] is 3; use a mapping",
        "plan.disagreement is 0.01; use at least plan.disagreement_floor, 0.05",
        "must_improve.alpha is 0.06; use at most method.alpha, 0.05",
        'slices.require is [\'bbh\']; use a list of "benchmark/category" or "benchmark/*"',
        "override.allow is ['critical']; use a list of standard, advisory",
        "notify[0].webhook is 'https://a.org/x'; use env:NAME, the environment variable that holds the address",
        "notify[1] is {'webhook': 'env:A', 'file': 'b'}; use webhook or file, one of them",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("must_not_regress: {gsm-8k: {tier: advisory}}", "no benchmark or column named 'gsm-8k' in the suite; did you"),
        ("must_not_regress: {gsm8k: {cluster: passage}}", "there is none): not declared by gsm8k"),
        ("must_not_regress: {math: {cluster: subjct}}", "did you mean 'subject'?"),
        ("must_not_regress: {default: {cluster: subject}}", "not declared by popqa, truthfulqa, bbh, drop, gsm8k"),
        ("must_not_regress: {gsm8k: {strata: true}}", "false for benchmarks without categories: gsm8k"),
        ("must_not_regress: {bbh: {strata: true, cluster: category}}", "either strata or a cluster field"),
        ("must_not_regress: {mmlu: {margin: 0.1}, mmlu_cot: {margin: 0.2}}", "the same benchmark as 'mmlu'"),
        ("must_not_regress: {mmlu: {margin: 0.1}}\nsafety: {mmlu_cot: {floor: 0.5, margin: 0.2}}", "says 0.1"),
        ("safety: {bbh/date_understandin: {floor: 0.5}}", "no category 'date_understandin'; did you mean 'date_under"),
        ("safety: {wildjailbreak/adversarial_benign: {floor: 0.5, margin: 0.1}}", "a margin for the whole benchmark"),
        ("safety: {safety/harm: {floor: 0.5}}", "'safety' is a group; name one of its benchmarks: harmbench, xstest"),
        ("slices: {require: [gsm8k/easy]}", "'gsm8k' has no categories"),
        ("slices: {require: [bhb/snarks]}", "no benchmark or column named 'bhb' in the suite; did you mean 'bbh'?"),
        ("must_improve: {all_of: [{metric: makro}]}", "did you mean 'macro'?"),
        ("must_improve: {all_of: []}", "at least one target, or must_improve: null"),
        ("must_improve: {any_of: [{metric: macro}], all_of: [{metric: math}]}", "any_of or all_of, one of them"),
        (
            "must_not_regress: {default: {tier: advisory}}",
            "every benchmark is advisory, so this policy decides nothing",
        ),
        ("suite: demo", "use a policy for 'tulu3-dev'"),
        ("suite: tulu3-dev@sha256:0123abcd", f"the digest of the suite as it is here, {DEV.digest}"),
    ],
)
def test_what_the_suite_does_not_have_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = problems(written(tmp_path, text), suite=DEV)
    assert expected in line


def test_a_policy_may_hold_on_to_the_digest_of_its_suite(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, f"suite: tulu3-dev@sha256:{DEV.digest[:12]}\n"), suite=DEV)
    assert policy.suite.endswith(DEV.digest[:12])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("method.looks", "--set 'method.looks': expected path=value, such as method.looks=5"),
        ("method.loks=3", "--set method.loks: method.loks: unknown key, its value is 3; did you mean 'looks'?"),
        ("method.looks.x=3", "--set method.looks.x: method.looks is {'x': 3}; use a whole number from 1 to 50"),
        ("infra=[loads", "--set infra: infra: the value '[loads' is no YAML"),
        (
            "samples.when=[{n_lt: 9, k: 0}]",
            "--set samples.when: samples.when[0].k is 0; use a whole number of at least 1",
        ),
    ],
)
def test_a_bad_setting_is_named(setting: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(None, [setting])
    assert str(caught.value) == expected


def test_an_unknown_policy_is_a_usage_error_with_the_near_miss() -> None:
    there = "there are default, demo, ladder, release, tulu3"
    with pytest.raises(UsageError, match=rf"no policy named 'tulu'; did you mean 'tulu3'\?; {there}"):
        load_policy("tulu")


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="expected a mapping, found list"):
        load_policy(written(tmp_path, "[1, 2]"))


@pytest.mark.parametrize(
    ("n", "sampled", "k"),
    [(164, True, 8), (999, True, 8), (1000, True, 4), (2599, True, 4), (2600, True, 1), (164, False, 1)],
)
def test_small_sets_are_asked_more_often(n: int, sampled: bool, k: int) -> None:
    assert load_policy().samples.k_for(n, sampled=sampled) == k


def test_the_order_of_the_k_rules_does_not_matter() -> None:
    turned = load_policy(None, ["samples.when=[{n_lt: 2600, k: 4}, {n_lt: 1000, k: 8}]"])
    assert turned.digest == load_policy().digest


def test_a_policy_is_read_without_numpy_or_scipy() -> None:
    code = "import sys; from evalsuite.gate.reading import load_policy; load_policy(); "
    code += "print(sorted({'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
