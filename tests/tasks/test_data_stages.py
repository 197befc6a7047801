"""The stages on data as users run them: killed half-way, and with records whose text must stand nowhere."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.builders import sentences, write_table
from helpers.project import PATIENCE, Project

from tasks.runtime.digests import dvc_digest, sha256

# The first stands in a row that cannot be split into columns, of which only the position is kept; then one is rejected for its
# answer, one for a number that lost its decimal point; the last is a good record.
CANARIES = ("canary-ragged", "canary-short", "canary-amount", "Quillfeather")
MADE = ("documents", "variants", "shards", "reports/preprocess/funnel.json", "reports/augment/augment.json")


def processes(project: Project) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.path):
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def killed_when_there_is(project: Project, pattern: str) -> None:
    """Start the stages, and kill every process of them at once when a file of that name has appeared."""
    with open(project.path.parent / "log", "wb") as log:
        begun = subprocess.Popen(
            ["dvc", "repro", "shard"], cwd=project.path, env=project.environment, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + PATIENCE
    while not any(project.path.glob(pattern)):
        assert time.monotonic() < deadline and begun.poll() is None, (project.path.parent / "log").read_text()
        time.sleep(0.005)
    while left := processes(project):
        for process in left:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    begun.wait(120)


def outputs(project: Project) -> dict[str, str]:
    paths = {name: project.path / "artifacts" / name for name in MADE}
    return {name: dvc_digest(path) if path.is_dir() else sha256(path) for name, path in paths.items()}


@pytest.mark.system
def test_stages_killed_half_way_end_with_the_same_bytes(project: Project) -> None:
    write_table(project.path / "data" / "more.csv", sentences(400))
    project.environment["WORKERS"] = "2"
    for pattern in (".cache/preprocess/stripped/*", "artifacts/.variants.partial/*", ".cache/shard/*"):
        killed_when_there_is(project, pattern)
    project.run("dvc", "repro", "shard")
    after_kills = outputs(project)
    shutil.rmtree(project.path / ".cache")
    output = project.run("dvc", "repro", "--force", "shard").stdout
    assert {"preprocess", "augment", "shard"} <= set(project.ran(output))
    assert outputs(project) == after_kills
    assert not any((project.path / ".cache").glob("preprocess*"))


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.system
@pytest.mark.parametrize("passes", [True, False])
def test_what_records_say_stands_in_no_log_report_or_run(project: Project, passes: bool) -> None:
    rows = [f'"Which is {CANARIES[0]}?","Ragged {CANARIES[0]}.","{CANARIES[0]}"', f"What is {CANARIES[1]}?,{CANARIES[1]}"]
    rows.append(f"How much of {CANARIES[2]}?,Take {CANARIES[2]} 100125 mg a day until the fever is gone.")
    rows.append(f"Who wrote this?,It was seen by Dr. Jonas {CANARIES[3]} who wrote that the fever would go by itself.")
    (project.path / "data" / "bad.csv").write_text("\n".join(["Question,Answer", *rows]) + "\n", encoding="utf-8")
    project.set_params("preprocess", max_rejected_share=0.5 if passes else 0.001, min_answer_chars=20)
    result = project.run("dvc", "repro", "shard", check=False)
    assert (result.returncode == 0) == passes, result.stdout
    store = [project.path.parent / "prefect", project.path / "mlartifacts"]
    private = ("rejected.jsonl", "changes.csv")
    names = {path for path in files(project.path / "artifacts", project.path / ".cache", *store) if path.name not in private}
    names |= {path for path in project.path.glob("*") if path.is_file()}
    for canary in CANARIES:
        assert canary not in result.stdout
        assert not [path for path in names if canary.encode() in path.read_bytes()]
    folder = project.path / ("artifacts" if passes else ".cache/failed-preprocess")
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [sum(canary in json.dumps(row) for row in rejected) for canary in CANARIES] == [0, 1, 1, 0]
    assert {"source": "bad.csv", "position": "line 2", "reason": "has 3 cells, the header has 2"} in rejected
    if passes:
        assert (project.path / "mlflow.db").exists() or list((project.path / ".cache" / "records").glob("*"))
