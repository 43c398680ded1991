"""The loopback hub behaves like the real one where loading depends on it, and real loading through it is correct."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from evalsuite.data import DatasetSpec, load, resolve_all
from tests.hub import Hub, commit_of, serve, write_repo

REPOSITORY = Path(__file__).resolve().parents[2]
TWELVE = (
    ("openai/gsm8k", "main", "test"),
    ("cais/mmlu", "all", "test"),
    ("google/IFEval", "default", "train"),
    ("truthfulqa/truthful_qa", "multiple_choice", "validation"),
    ("lukaemon/bbh", "snarks", "test"),
    ("akariasai/PopQA", "default", "test"),
    ("openai/openai_humaneval", "openai_humaneval", "test"),
    ("evalplus/humanevalplus", "default", "test"),
    ("tatsu-lab/alpaca_eval", "alpaca_eval_gpt4_baseline", "eval"),
    ("HuggingFaceH4/MATH-500", "default", "test"),
    ("walledai/HarmBench", "standard", "train"),
    ("google-research-datasets/mbpp", "full", "test"),
)

# Loads what argv[1] lists by its hub name, in a fresh process, and prints one digest of the rows per dataset.
LOADER = """
import json, sys
from evalsuite.data import DatasetSpec, go_offline_when_local, load, resolve_all
from tests.evalsuite.test_hub import rows_digest
specs = {DatasetSpec(i, c, (s,)): s for i, c, s in json.loads(sys.argv[1])}
found = resolve_all(list(specs), (), offline=False)
go_offline_when_local(found.values())
loaded = {spec: rows_digest(load(found[spec], split)) for spec, split in specs.items()}
print(json.dumps({spec.id: [rows, found[spec].digest] for spec, rows in loaded.items()}))
"""

# What each faulty owner is answered with, resolved together in a fresh process.
RESOLVER = """
import sys
from evalsuite.data import DatasetSpec, resolve_all
from evalsuite.errors import DataError
specs = [DatasetSpec(i, revision=r or None) for i, _, r in (a.partition('@') for a in sys.argv[1:])]
try:
    resolve_all(specs, (), offline=False)
except DataError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def rows_digest(rows: Any) -> str:
    """sha256 of the rows without nulls: some ways of loading fill ragged dicts with them."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if v is not None}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps([bare(r) for r in rows], sort_keys=True).encode()).hexdigest()


def in_fresh_process(code: str, *args: str, home: Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` with its own Hugging Face home; the network is allowed unless `env` says otherwise."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    own = {"HF_HOME": str(home), "EVALSUITE_CACHE": str(home / "evalsuite"), "PYTHONPATH": str(REPOSITORY)}
    own["NO_PROXY"] = "127.0.0.1"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**inherited, **own, **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(5)]
    write_repo(tmp_path / "root", "some/Data", {"main": {"train": rows[:2], "test": rows}, "other": {"test": rows[:1]}})
    with serve(tmp_path / "root") as running:
        yield running


def ask(hub: Hub, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> HTTPResponse:
    request = urllib.request.Request(hub.url + path, body, headers, method=method)
    answer: HTTPResponse = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
    return answer


def test_a_file_has_its_git_blob_id_as_etag_and_the_commit_of_its_repository(hub: Hub) -> None:
    data = (hub.root / "some/Data/main/test.jsonl").read_bytes()
    answer = ask(hub, "/datasets/some/Data/resolve/main/main/test.jsonl")
    assert answer.read() == data
    assert answer.headers["ETag"] == f'"{hashlib.sha1(b"blob %d" % len(data) + bytes(1) + data).hexdigest()}"'
    assert answer.headers["X-Repo-Commit"] == commit_of(hub.root / "some/Data")
    head = ask(hub, "/datasets/some/Data/resolve/main/main/test.jsonl", "HEAD")
    assert (head.headers["Content-Length"], head.read()) == (str(len(data)), b"")


def test_a_range_is_answered_with_that_part_of_the_file(hub: Hub) -> None:
    data = (hub.root / "some/Data/main/test.jsonl").read_bytes()
    answer = ask(hub, "/datasets/some/Data/resolve/main/main/test.jsonl", Range="bytes=3-9")
    assert (answer.status, answer.read()) == (206, data[3:10])
    assert answer.headers["Content-Range"] == f"bytes 3-9/{len(data)}"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/datasets/some/Data/resolve/main/nothing.txt", 404, "EntryNotFound"),
        ("/datasets/some/Nothing/resolve/main/README.md", 404, "RepoNotFound"),
        ("/datasets/some/Data/resolve/other-branch/README.md", 404, "RevisionNotFound"),
        ("/api/datasets/some/Data/tree/main/nowhere", 404, "EntryNotFound"),
        ("/datasets/gated/x/resolve/main/README.md", 403, "GatedRepo"),
        ("/datasets/auth/x/resolve/main/README.md", 401, "Unauthorized"),
        ("/datasets/boom/x/resolve/main/README.md", 500, None),
        ("/api/datasets/busy/x", 429, None),
        ("/api/agent-harnesses", 404, None),
    ],
)
def test_what_is_not_there_is_refused_in_the_hubs_own_words(hub: Hub, path: str, status: int, code: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(hub, path)
    assert (refused.value.code, refused.value.headers["X-Error-Code"]) == (status, code)


def test_the_api_lists_files_with_their_ids(hub: Hub) -> None:
    info = json.load(ask(hub, "/api/datasets/some/Data/revision/main"))
    assert info["sha"] == commit_of(hub.root / "some/Data")
    assert {"rfilename": "main/test.jsonl"} in info["siblings"]
    tree = json.load(ask(hub, f"/api/datasets/some/Data/tree/{info['sha']}/main?recursive=false&expand=false"))
    assert [(row["type"], row["path"]) for row in tree] == [("file", "main/test.jsonl"), ("file", "main/train.jsonl")]
    posted = json.dumps({"paths": ["README.md", "absent"]}).encode()
    rows = json.load(ask(hub, "/api/datasets/some/Data/paths-info/main", "POST", posted))
    assert [(row["path"], row["size"]) for row in rows] == [
        ("README.md", (hub.root / "some/Data/README.md").stat().st_size)
    ]


def test_the_commit_changes_with_content_and_with_nothing_else(tmp_path: Path) -> None:
    rows = {"main": {"test": [{"a": 1}]}}
    one, same = (write_repo(tmp_path / root, "o/n", rows) for root in "ab")
    other = write_repo(tmp_path / "c", "o/n", {"main": {"test": [{"a": 2}]}})
    assert commit_of(one) == commit_of(same) != commit_of(other)


def test_rows_loaded_by_name_come_through_the_hub_and_then_from_the_cache_without_it(hub: Hub, tmp_path: Path) -> None:
    wanted = json.dumps([["some/Data", "main", "test"]])
    online = in_fresh_process(LOADER, wanted, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    assert online.returncode == 0, online.stderr
    root_rows = [json.loads(line) for line in (hub.root / "some/Data/main/test.jsonl").read_text().splitlines()]
    expected = [rows_digest(root_rows), commit_of(hub.root / "some/Data")]
    assert json.loads(online.stdout) == {"some/Data": expected}
    assert {line.split()[1] for line in hub.log} == {hub.url.removeprefix("http://")}

    seen = len(hub.log)
    offline = in_fresh_process(LOADER, wanted, home=tmp_path / "home", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout) == {"some/Data": expected}
    assert (len(hub.log), offline.stderr) == (seen, "")

    # The library takes the newest entry whatever revision is asked for; we take it only when it is that one.
    for revision, code in ((expected[1], 0), ("0" * 40, 2)):
        pinned = f"some/Data@{revision}"
        run = in_fresh_process(RESOLVER, pinned, home=tmp_path / "home", cwd=tmp_path, HF_HUB_OFFLINE="1")
        assert run.returncode == code, run.stdout


def test_every_hub_problem_is_told_apart_in_one_message(hub: Hub, tmp_path: Path) -> None:
    asked = ("gated/x", "auth/x", "boom/x", "busy/x", "no/such", f"some/Data@{'0' * 40}", "some/Data")
    run = in_fresh_process(RESOLVER, *asked, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    first, *lines, advice = run.stdout.splitlines()
    assert (run.returncode, run.stderr) == (2, "")
    assert first == "6 of 7 datasets cannot be used: gated/x, auth/x, boom/x, busy/x, no/such, some/Data"
    meanings = ("gated: accept its terms", "private", "HTTP 500", "HTTP 429", "not on the hub", "no revision '0000")
    for line, dataset, meaning in zip(lines, asked, meanings, strict=False):
        assert dataset.partition("@")[0] in line
        assert meaning in line
    asked_of = {
        owner: sum(f"/datasets/{owner}/" in line for line in hub.log) for owner in ("gated", "no", "boom", "busy")
    }
    assert (asked_of["gated"], asked_of["no"]) == (1, 1)
    assert min(asked_of["boom"], asked_of["busy"]) > 1
    assert "HF_TOKEN" in lines[0]
    assert "--data-root DIR" in advice


def test_a_hub_without_a_route_is_reported_without_a_long_wait(tmp_path: Path) -> None:
    with serve(tmp_path) as stopped:
        url = stopped.url
    run = in_fresh_process(RESOLVER, "some/data", home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=url)
    assert run.returncode == 2
    assert "the hub cannot be reached" in run.stdout


def test_a_folder_below_the_current_directory_is_refused_rather_than_loaded_for_the_hub(
    hub: Hub, tmp_path: Path
) -> None:
    write_repo(tmp_path / "work", "some/Data", {"main": {"test": [{"question": "another"}]}})
    for env in ({"HF_ENDPOINT": hub.url}, {"HF_HUB_OFFLINE": "1"}):
        run = in_fresh_process(RESOLVER, "some/Data", home=tmp_path / "home", cwd=tmp_path / "work", **env)
        assert run.returncode == 2
        assert f"{tmp_path / 'work/some/Data'} would be loaded instead of the hub dataset 'some/Data'" in run.stdout
        assert f"--data-root {tmp_path / 'work'}" in run.stdout


LOAD_ERRORS = """
import sys
from evalsuite.data import DatasetSpec, Resolved, load
from evalsuite.errors import DataError
for spec, split in eval(sys.argv[1]):
    try:
        load(Resolved(spec, "hub", spec.id, ""), split)
    except DataError as error:
        print(error)
"""


def test_wrong_configs_splits_and_columns_of_a_hub_dataset_say_what_there_is(hub: Hub, tmp_path: Path) -> None:
    cases = (
        "[(DatasetSpec('some/Data', 'nix'), 'test'), (DatasetSpec('some/Data'), 'test'), "
        "(DatasetSpec('some/Data', 'main'), 'validation'), "
        "(DatasetSpec('some/Data', 'main', columns=('question', 'solution')), 'test'), "
        "(DatasetSpec('gated/x'), 'test'), (DatasetSpec('no/such'), 'test')]"
    )
    run = in_fresh_process(LOAD_ERRORS, cases, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    lines = [line.partition(": ")[2] or line for line in run.stdout.splitlines()]
    assert [line[:55] for line in lines] == [
        "no config 'nix'; it has main, other; set dataset_name i",
        "it has several configs (main, other); set dataset_name ",
        "no split 'validation'; it has 'train', 'test'; correct "[:55],
        "dataset 'some/Data' split 'test' lacks solution; it has"[:55],
        "it is gated: accept its terms on its hub page (datasets"[:55],
        "it is not on the hub, or is private and HF_TOKEN does n"[:55],
    ], run.stdout + run.stderr


@pytest.mark.slow
def test_a_failing_hub_is_named_as_such_although_the_library_says_file_not_found(hub: Hub, tmp_path: Path) -> None:
    cases = "[(DatasetSpec('boom/x'), 'test')]"  # 23 s: the library's own retries
    run = in_fresh_process(LOAD_ERRORS, cases, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    assert "the hub is busy or failing (HTTP 500)" in run.stdout, run.stdout + run.stderr


@pytest.mark.slow
def test_twelve_real_datasets_have_equal_rows_from_a_folder_from_the_hub_and_from_its_cache(
    hub_data: Path, tmp_path: Path
) -> None:
    wanted = json.dumps(TWELVE)
    with serve(hub_data) as hub:
        online = in_fresh_process(LOADER, wanted, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
        assert online.returncode == 0, online.stderr
        assert {line.split()[1] for line in hub.log} == {hub.url.removeprefix("http://")}
    cached = in_fresh_process(LOADER, wanted, home=tmp_path / "home", cwd=tmp_path, HF_HUB_OFFLINE="1")
    specs = [DatasetSpec(i, config, (split,)) for i, config, split in TWELVE]
    found = resolve_all(specs, (hub_data,), offline=True)
    local = {spec.id: rows_digest(load(found[spec], spec.splits[0])) for spec in specs}
    assert {i: rows for i, (rows, _) in json.loads(online.stdout).items()} == local
    assert json.loads(cached.stdout) == json.loads(online.stdout)
