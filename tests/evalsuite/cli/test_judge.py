"""Which judge a command line describes for which benchmark, and that nothing on it is lost without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from evalsuite.__main__ import main
from evalsuite.benchmark import Benchmark, find_benchmark
from evalsuite.cli.judge import choose_judges, judge_options, make_judges
from evalsuite.errors import BenchmarkError, EvalsuiteError, UsageError
from evalsuite.protocol import judges_folder
from evalsuite.verify.judge_prompt import sha256
from tests.evalsuite.test_score_judged import make_judged
from tests.servers import ScriptedServer

OFFICIAL = "[INST] {prompt} and {response} [/INST]"
CLASSIFIER = f"""
name: mine
family: safety
templates:
  safety: {{kind: raw, fields: {{prompt: untrusted, response: untrusted}}}}
answer: {{kind: text, max_tokens: 8}}
parser: three_lines
positions: fixed
official_only: true
official_sha256: {{safety: {sha256(OFFICIAL)}}}
"""


def parsed(*arguments: str, results: Path = Path("results"), skip_judged: bool = False) -> dict[str, Any]:
    """The options as the command line hands them on."""

    @click.command()
    @judge_options
    def command(**options: Any) -> dict[str, Any]:
        return options

    options: dict[str, Any] = command.main(list(arguments), standalone_mode=False)
    return options | {"results": results, "threads": 1, "skip_judged": skip_judged}


def columns(*names: str) -> dict[str, Benchmark]:
    return {name: find_benchmark(name) for name in names}


def own_benchmark(root: Path, protocol: str, judge: str = "mine") -> Benchmark:
    """A judged benchmark that brings judges/mine.yaml."""
    make_judged(root, n=4)
    folder = root / "judged"
    yaml = folder / "judged.yaml"
    yaml.write_text(yaml.read_text().replace("judge: demo", f"judge: {judge}"))
    (folder / "judges").mkdir()
    (folder / "judges" / "mine.yaml").write_text(protocol)
    return find_benchmark("judged", (root,))


def own_demo() -> str:
    return (judges_folder() / "demo.yaml").read_text().replace("name: demo", "name: mine")


# -- which judge for which benchmark --


def test_a_classifier_with_its_official_text_and_a_served_judge_stand_on_one_command_line(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    own = own_benchmark(tmp_path / "benchmarks", CLASSIFIER)
    template = tmp_path / "classifier.txt"
    template.write_text(OFFICIAL)
    with ScriptedServer() as server:
        options = parsed(
            *("--judge", f"mine=hf:{tiny_checkpoint}", "--judge-template", str(template)),
            *("--judge", f"alpaca_eval=api:{server.url}", "--judge-model", "alpaca_eval=m", "--judge-discrete"),
        )
        makers, skipped = make_judges(options, {"judged": own, **columns("alpaca_eval")})
        with makers["mine"]() as classifier, makers["alpaca_eval"]() as served:
            assert classifier.templates["safety"].official == sha256(OFFICIAL)
            assert (classifier.local, classifier.discrete) == (True, False)
            assert (served.who["served_model"], served.reads) == ("m", "discrete")
    assert skipped == ()


def test_a_value_for_one_protocol_goes_before_the_one_for_all() -> None:
    options = parsed(
        *("--judge-model", "everyone", "--judge-model", "safety_llm=safe", "--judge-model", "wildguard=guard"),
        *("--judge-parser", "href=href_tolerant", "--judge-api-key-env", "alpaca_eval=KEY"),
    )
    url = "api:http://127.0.0.1:9/v1"
    pairs = [(f"safety_llm={url}", "wildguard"), (url, "href"), (url, "alpaca_eval")]
    found = {one.needed: dict(one.settings) for one in choose_judges(pairs, options)}
    assert found == {
        "wildguard": {"judge_model": "safe"},  # the protocol that judges goes before the one it stands in for
        "href": {"judge_model": "everyone", "judge_parser": "href_tolerant"},
        "alpaca_eval": {"judge_model": "everyone", "judge_api_key_env": "KEY"},
    }


def test_a_template_that_no_judge_here_knows_is_refused_in_the_name_of_all(tmp_path: Path) -> None:
    template = tmp_path / "other.txt"
    template.write_text("another text")
    pairs = [("wildguard=hf:W", "wildguard"), ("alpaca_eval=hf:A", "alpaca_eval")]
    with pytest.raises(UsageError, match=r"is no official template of 'wildguard' or 'alpaca_eval' \(expected safety "):
        choose_judges(pairs, parsed("--judge-template", str(template)))


def test_two_values_for_the_same_judge_are_refused() -> None:
    for values in (("a", "b"), ("href=a", "href=b")):
        with pytest.raises(click.BadParameter, match="two values for"):
            parsed(*(part for value in values for part in ("--judge-model", value)))


def test_a_value_with_an_equals_sign_may_be_a_path_or_a_name_with_dots() -> None:
    options = parsed("--judge-tokenizer", "runs/step=3/tok", "--judge-model", "judge-4.1=b")
    assert (options["judge_tokenizer"], options["judge_model"]) == ({"": "runs/step=3/tok"}, {"": "judge-4.1=b"})


@pytest.mark.parametrize(
    ("names", "arguments", "why"),
    [
        (("gsm8k",), ("--judge", "bogus"), r"--judge 'bogus': use \[PROTOCOL=\]api:URL"),
        (("gsm8k",), ("--judge", "href=hf:x"), r"'href=hf:x' would judge nothing here .* for: none\)"),
        (("alpaca_eval",), ("--judge", "hf:x", "--judge", "href=hf:y"), r"'href=hf:y' would judge nothing here"),
        (("href",), ("--judge", "href=hf:x", "--judge", "href=hf:y"), r"'href=hf:y' would judge nothing here"),
        (("href",), ("--judge", "hf:x", "--judge", "hf:y"), "two judges for all protocols: 'hf:x' and 'hf:y'"),
        (("href",), ("--judge", "hf:x", "--judge-model", "hreff=m"), r"protocol 'hreff'; did you mean 'href'\?"),
        (("href",), ("--judge", "hf:x", "--judge-parser", "alpaca_eval=m_or_M"), r"no judge here .*in use: href\)"),
        (("href", "gsm8k"), (), r"1 benchmarks are scored by a judge, and none was given: href \(href\)"),
    ],
)
def test_what_would_be_lost_without_a_word_is_refused(
    names: tuple[str, ...], arguments: tuple[str, ...], why: str
) -> None:
    with pytest.raises(EvalsuiteError, match=why):
        make_judges(parsed(*arguments), columns(*names))


def test_a_discrete_judge_is_a_served_one() -> None:
    with pytest.raises(click.UsageError, match="--judge-discrete is for api: judges"):
        make_judges(parsed("--judge", "hf:x", "--judge-discrete"), columns("alpaca_eval"))


def test_a_judge_for_all_may_find_nothing_to_judge() -> None:
    assert make_judges(parsed("--judge", "hf:x"), columns("gsm8k")) == ({}, ())


def test_skip_judged_leaves_out_only_what_has_no_judge() -> None:
    options = parsed("--judge", "href=hf:x", skip_judged=True)
    makers, skipped = make_judges(options, columns("href", "alpaca_eval", "gsm8k"))
    assert (list(makers), skipped) == (["href"], ("alpaca_eval",))


def test_a_parser_of_ones_own_choice_reads_the_answers(tiny_checkpoint: Path) -> None:
    options = parsed("--judge", f"hf:{tiny_checkpoint}", "--judge-parser", "href_tolerant")
    makers, _ = make_judges(options, columns("href"))
    with makers["href"]() as judge:
        assert judge.parser == "href_tolerant"
    options = parsed("--judge", f"hf:{tiny_checkpoint}", "--judge-parser", "href_tolerent")
    with pytest.raises(UsageError, match=r"judge parser 'href_tolerent'; did you mean 'href_tolerant'\?"):
        make_judges(options, columns("href"))[0]["href"]()


# -- protocols that a benchmark brings --


@pytest.mark.parametrize("judge", ["mine", "judges/mine.yaml"])
def test_a_benchmark_may_bring_the_protocol_that_judges_it(tmp_path: Path, tiny_checkpoint: Path, judge: str) -> None:
    own = own_benchmark(tmp_path, own_demo(), judge)
    for spec in (f"hf:{tiny_checkpoint}", f"mine=hf:{tiny_checkpoint}"):
        makers, _ = make_judges(parsed("--judge", spec), {"judged": own, **columns("gsm8k")})
        with makers[judge]() as opened:
            assert opened.protocol.name == "mine"


def test_a_benchmark_with_its_own_protocol_is_scored(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_benchmark(tmp_path / "benchmarks", own_demo())
    arguments = ["--benchmarks", str(tmp_path / "benchmarks"), "--results", str(tmp_path / "results")]
    arguments += ["--tasks", "judged", "--judge", f"mine=hf:{tiny_checkpoint}", "--threads", "1", "--json"]
    assert main(["score", str(tiny_checkpoint), "--model", "hf", *arguments]) == 0
    card = json.loads(capsys.readouterr().out)
    (result,) = card["results"]
    assert (result["judge"]["protocol"], result["judge"]["n_asked"]) == ("mine", 4)
    assert card["suite"]["regime"] == "adhoc"


def test_a_name_that_means_two_protocols_is_refused(tmp_path: Path) -> None:
    own = own_benchmark(tmp_path, own_demo())
    (own.folder / "judges" / "demo.yaml").write_text(own_demo())
    with pytest.raises(BenchmarkError, match="two judge protocols are called 'demo'"):
        make_judges(parsed("--judge", "hf:x"), {"judged": own})
