"""The command that writes preference pairs ↔ a server on the loopback interface, and real folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from tests.scripted_lm import make_scripted
from tests.servers import Body, Reply, ScriptedServer, prompt_of
from tests.train_plugins.data.judging import as_json, rates_by
from tests.train_plugins.data.preferring import World, belongs, by_author
from train_plugins.data.pref_config import read_preferences
from train_plugins.data.preferences import make_preferences
from train_plugins.data.rows import read_meta, read_rows


def judge_server(rating: Callable[[str, str], Any], n_prompt: int = 100) -> ScriptedServer:
    """Models answer a prompt under their names; whatever is asked with "Grade one thing only" is judged."""

    def script(body: Body, attempt: int) -> Reply | None:
        prompt = prompt_of(body)
        said = rates_by(rating)(prompt) if "Grade one thing only" in prompt else f"{body['model']} says: {prompt}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": n_prompt, "completion_tokens": 10}})

    return ScriptedServer(script=script)


def served(tmp_path: Path, url: str, **judge: Any) -> Path:
    world = World(tmp_path, judge={"model": f"api:{url}", "served_model": "j"} | judge)
    for model in world.raw["models"]:
        model |= {"model": f"api:{url}", "served_model": model["name"]}
    world.file()
    return tmp_path / "prefs.yaml"


def test_the_command_writes_pairs_from_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    with judge_server(by_author) as server:
        path = served(tmp_path, server.url)
        assert main(["data", "preferences", str(path), "-o", str(out), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        n_asked = len(server.asked())
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 0
        assert len(server.asked()) == n_asked == 12 * 4 + 12 * 4
        path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 2
        assert len(server.asked()) == n_asked
    assert (report["pairs"], report["on_policy_share"]) == (12, 0.5)
    table, refused = capsys.readouterr()
    assert "12 pairs" in table
    assert "model a" in table
    assert "was not made by this file; name another with -o, or add --overwrite" in refused
    assert all(belongs(row) for row in read_rows(out, "preference"))
    assert read_meta(out)["made"]["command"] == "evalsuite data preferences prefs.yaml -o out.jsonl"


def test_a_limit_in_dollars_stops_the_command_and_a_higher_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / "prices.yaml").write_text("j: {read: 100, written: 100, dated: 2026-08-01}\n")
    bounds: dict[str, Any] = {"prices": "prices.yaml", "max_tokens": 10, "concurrency": 1}
    with judge_server(by_author) as server:
        # A question has more than 1,000 bytes: its worst case is more than 500 tokens, or 5 cents; it takes 110.
        path = served(tmp_path, server.url, max_cost_usd=0.3, **bounds)
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 3
        told = capsys.readouterr().err
        assert "--max-cost-usd 0.3 would be crossed" in told
        assert not out.exists()
        n_before = len(server.asked())
        path = served(tmp_path, server.url, max_cost_usd=50, **bounds)
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 0
        assert len(server.asked()) == 96
        assert n_before > 48
    assert len(list(read_rows(out, "preference"))) == 12


def test_one_limit_holds_for_all_models_and_all_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each question takes 20 + 10 tokens here: 48 answers 1,440, of which 1,000 are 33.3."""
    out = tmp_path / "out.jsonl"
    with judge_server(by_author, 20) as server:
        path = served(tmp_path, server.url)
        raw = yaml.safe_load(path.read_text())
        for each in (*raw["models"], raw["judge"]):
            each |= {"max_tokens": 10, "concurrency": 1}

        def run(limit: int) -> int:
            path.write_text(yaml.safe_dump(raw | {"max_tokens_total": limit}))
            return main(["data", "preferences", str(path), "-o", str(out)])

        assert run(1000) == 3
        assert "the file's max_tokens_total 1000, less what other models have used" in capsys.readouterr().err
        n_first = len(server.asked())
        assert 30 <= n_first <= 33  # a question is only asked when its worst case fits
        assert run(1000) == 3
        assert len(server.asked()) == n_first
        assert run(40_000) == 0
        assert len(server.asked()) == 96
    assert len(list(read_rows(out, "preference"))) == 12


def test_a_dry_run_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = served(tmp_path, "http://127.0.0.1:9/v1")
    assert main(["data", "preferences", str(path), "--dry-run", "--limit", "5"]) == 0
    told = capsys.readouterr().out
    assert "answers" in told
    assert "Text 4:" in told
    assert main(["data", "preferences", str(path), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["prompts"], plan["answers"], plan["ratings_asked"]) == (12, 48, 48)


def test_the_command_refuses_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preferences", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    path = served(tmp_path, "http://127.0.0.1:9/v1")
    assert main(["data", "preferences", str(path), "-o", str(tmp_path / "out.txt")]) == 2
    assert "its name ends in none of" in capsys.readouterr().err


def test_the_command_measures_agreement_on_llmbar(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shared_data / "train" / "preference" / "llmbar.jsonl"
    if not file.is_file():
        pytest.skip(f"real data is absent: {file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][:60]
    better = {" ".join(row[f"output_{row['label']}"].split()) for row in rows}
    with judge_server(lambda text, aspect: 5 if " ".join(text.split()) in better else 2) as server:
        path = served(tmp_path, server.url)
        arguments = ["data", "preferences", str(path), "-o", str(tmp_path / "o.jsonl"), "--agreement", str(file)]
        assert main([*arguments, "--limit", "60", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["subsets"]
        assert main([*arguments, "--limit", "60"]) == 0
        assert len(server.asked()) == 60 * 4
    assert found["all"]["n"] == 60
    assert found["all"]["agreement"] > 0.95  # not 1: outputs with broken control strings are other texts
    assert sum(each["n"] for name, each in found.items() if name != "all") == 60
    assert "agreement without ties" in capsys.readouterr().out


@pytest.mark.slow
def test_local_folders_answer_and_judge(tmp_path: Path) -> None:
    """Real engines: two models that say one thing each, and a judge that always prefers the text it sees first."""
    for name, said in (("x", "This is x."), ("y", "That is y."), ("j", as_json({1: 5, 2: 1}))):
        make_scripted(tmp_path / name, said)
    raw = World(tmp_path, 6).raw
    raw["models"] = [{"name": name, "model": f"hf:{name}", "dtype": "float32"} for name in ("x", "y")]
    raw |= {"responses": {"n": 2, "max_tokens": 8}, "judge": {"model": "hf:j", "max_tokens": 8}}
    path = tmp_path / "prefs.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    made = make_preferences(read_preferences(path), tmp_path / "out.jsonl")
    rows = list(read_rows(tmp_path / "out.jsonl", "preference"))
    assert len(rows) == 6
    assert all([row["chosen_model"], row["rejected_model"]] == row["order"] for row in rows)
    assert {row["chosen"][-1]["content"] for row in rows} <= {"This is x.", "That is y."}
    models = read_meta(tmp_path / "out.jsonl")["made"]["models"]
    assert models["x"]["weights"] != models["y"]["weights"]
    assert made.report["cost_usd"] == 0


def test_the_prompts_are_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with judge_server(by_author) as server:
        path = served(tmp_path, server.url)
        (name,) = yaml.safe_load(path.read_text())["prompts"]
        before = (tmp_path / name).read_bytes()
        assert main(["data", "preferences", str(path), "-o", str(tmp_path / name), "--overwrite"]) == 2
        assert server.asked() == []
    assert "holds the prompts; name another file with -o" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before
