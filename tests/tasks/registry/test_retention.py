"""What `make gc` keeps and removes, and where it would rather stop; with hundreds of versions too."""

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from helpers.pipeline import start
from helpers.project import PATIENCE, Project
from mlflow import MlflowClient
from ruamel.yaml import YAML

GC = (sys.executable, "-m", "tasks.registry", "gc")


def cache_of(project: Project) -> Path:
    return project.path / ".dvc" / "cache" / "files" / "md5"


def put(cache: Path, content: bytes, suffix: str = "") -> str:
    """An object of DVC's cache; its digest."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = cache / digest[:2] / (digest[2:] + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest + suffix


def put_directory(cache: Path, name: str) -> tuple[str, str]:
    """A directory of one file: the digests of both."""
    member = put(cache, f"content of {name}".encode())
    return put(cache, json.dumps([{"md5": member, "relpath": name}]).encode(), ".dir"), member


def has(cache: Path, digest: str) -> bool:
    return (cache / digest[:2] / digest[2:]).exists()


def objects(cache: Path) -> set[str]:
    return {path.parent.name + path.name for path in cache.glob("??/*")}


def named_by(project: Project) -> set[str]:
    """What the workspace names, as DVC itself says it."""
    script = (
        "import json; from dvc.repo import Repo\n"
        "print(json.dumps(sorted({i.value for infos in Repo().used_objs(force=True).values() for i in infos})))"
    )
    return set(json.loads(project.run(sys.executable, "-c", script).stdout.splitlines()[-1]))


def register(project: Project, count: int, folder: Path) -> list[tuple[str, str]]:
    """Versions beside those there are, each with a directory of its own; the digests of each one's listing and file."""
    client = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medical-llm")
    assert experiment
    yaml, digests = YAML(typ="safe"), []
    lock = yaml.load(project.path / "dvc.lock")
    for number in range(count):
        digests.append(put_directory(cache_of(project), f"weights-{number}"))
        (out,) = (out for out in lock["stages"]["finetune"]["outs"] if out["path"] == "artifacts/model")
        out["md5"] = digests[-1][0]
        pointers = folder / str(number)
        pointers.mkdir(parents=True)
        yaml.dump(lock, pointers / "dvc.lock")
        for name in ("dvc.yaml", "data.dvc"):
            (pointers / name).write_text((project.path / name).read_text())
        run = client.create_run(experiment.experiment_id)
        client.log_artifacts(run.info.run_id, str(pointers))
        client.create_model_version("medical-llm", f"runs:/{run.info.run_id}/checkpoint", run.info.run_id)
    return digests


@pytest.mark.slow
def test_what_a_version_or_the_workspace_names_stays_and_the_rest_goes(copied: Project, tmp_path: Path) -> None:
    cache = cache_of(copied)
    needed = named_by(copied) | {digest for both in register(copied, 3, tmp_path / "pointers") for digest in both}
    stray, (listing, member) = put(cache, b"nobody needs this"), put_directory(cache, "nor this")
    before = objects(cache)
    assert {stray, listing, member} <= before - needed
    output = copied.run(*GC, "--dry-run").stdout
    assert objects(cache) == before
    assert {"".join(parts) for parts in re.findall(r"would go files/md5/(..)/(\S+)", output)} == before - needed
    output = copied.run(*GC).stdout
    assert objects(cache) == before & needed
    assert f"removed  from DVC's cache: {len(before - needed)} objects" in output and "kept     medical-llm version 4" in output
    assert copied.ran(copied.run("dvc", "repro").stdout) == ["register"]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["flipped", *(pytest.param(state, marks=pytest.mark.campaign) for state in ("missing", "no JSON"))])
def test_a_listing_that_is_not_as_it_was_stops_it_before_anything_goes(copied: Project, tmp_path: Path, state: str) -> None:
    cache = cache_of(copied)
    ((listing, member),) = register(copied, 1, tmp_path / "pointers")
    stray, path = put(cache, b"nobody needs this"), cache / listing[:2] / listing[2:]
    if state == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"weights", b"height") if state == "flipped" else b"[")
    result = copied.run(*GC, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "artifacts/model of medical-llm version 2" in result.stdout and "dvc fetch" in result.stdout
    assert has(cache, stray) and has(cache, member)
    result = copied.run(*GC, "--incomplete", check=False)
    assert (result.returncode == 0, has(cache, stray), has(cache, member)) == (
        (True, False, False) if state == "missing" else (False, True, True)
    )


@pytest.mark.slow
def test_a_cache_that_may_be_others_too_is_left_alone(copied: Project, tmp_path: Path) -> None:
    copied.run("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    stray = put(tmp_path / "cache" / "files" / "md5", b"another project's")
    result = copied.run(*GC, check=False)
    assert result.returncode == 1 and "outside this directory" in result.stdout
    assert has(tmp_path / "cache" / "files" / "md5", stray)
    copied.run(*GC, "--shared", "--incomplete")
    assert not has(tmp_path / "cache" / "files" / "md5", stray)


@pytest.mark.slow
def test_it_takes_dvcs_lock(copied: Project) -> None:
    script = "import time; from dvc.repo import Repo\nwith Repo() as r, r.lock: print('held', flush=True); time.sleep(600)"
    holder = start(copied, sys.executable, "-c", script)
    try:
        deadline = time.monotonic() + PATIENCE
        while "held" not in (copied.path.parent / "log").read_text():
            assert time.monotonic() < deadline and holder.poll() is None
            time.sleep(0.1)
        result = copied.run(*GC, check=False)
        assert result.returncode == os.EX_TEMPFAIL and "DVC works in this directory; try again" in result.stdout
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.campaign
def test_three_hundred_versions_take_seconds(copied: Project, tmp_path: Path) -> None:
    made = register(copied, 300, tmp_path / "pointers")
    stray, began = put(cache_of(copied), b"nobody needs this"), time.monotonic()
    copied.run(*GC)
    seconds = time.monotonic() - began
    assert not has(cache_of(copied), stray) and all(has(cache_of(copied), digest) for both in made for digest in both)
    assert seconds < 120, f"{seconds:.0f} s"  # 30 on two quiet cores; 50 minutes before
    print(f"{seconds:.1f} s")
