"""Two machines, which are two network namespaces: they train one model, also when one of them is lost, and make the same shards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.project import ROOT, Project
from helpers.training import CROSSED, run

from tasks.runtime.digests import dvc_digest
from tasks.training import checkpoints, step_metrics

pytestmark = pytest.mark.system
KEY = "0" * 32
SCHEDULER = 8786
PARAMS = CROSSED.model_copy(update={"steps": 120, "validate_every": 60, "checkpoint_every": 5})


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable, with the addresses 10.77.0.1 and 10.77.0.2."""
    names = (f"node1-{os.getpid()}", f"node2-{os.getpid()}")
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for index, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{index}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def torchrun(node: str, address: str, folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    elastic = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", "--local-addr", address]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400", "--rdzv-id", "test"]
    hosting = int(address.endswith(".1"))
    patience = ["--rdzv-conf", f"is_host={hosting},last_call_timeout=8,keep_alive_interval=1,keep_alive_max_attempt=3"]
    command = [sys.executable, "-m", "torch.distributed.run", *elastic, *meeting, *patience, "-m", "tasks.training", "worker", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "cable"}
    with open(folder / f"{address}.log", "wb") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", node, *command], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def test_two_nodes_train_together_and_the_loss_of_one_is_survived(
    parts: tuple[Path, Path],
    nodes: tuple[str, str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    states = folder / checkpoints.folder_of(KEY)
    arguments = [*map(str, parts), KEY, PARAMS.model_dump_json()]
    first, second = (torchrun(node, f"10.77.0.{n}", folder, *arguments) for n, node in enumerate(nodes, 1))
    try:
        deadline = time.monotonic() + 600
        while not list(states.glob("0000001*")):
            assert time.monotonic() < deadline and first.poll() is None, (folder / "10.77.0.1.log").read_text()
            time.sleep(0.05)
        os.killpg(second.pid, signal.SIGKILL)
        assert first.wait(600) == 0, (folder / "10.77.0.1.log").read_text()
    finally:
        for process in (first, second):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    log = (folder / "10.77.0.1.log").read_text()
    assert "going on after step" in log, log
    history = step_metrics.read(states)
    assert [p["step"] for p in history] == list(range(1, 121))
    _, alone = run(parts, tmp_path / "alone", PARAMS)
    assert [p["loss"] for p in history] == pytest.approx([p["loss"] for p in alone], abs=1e-3)


def test_a_dask_cluster_on_two_nodes_makes_the_same_shards(copied: Project, nodes: tuple[str, str], tmp_path: Path) -> None:
    documents, shards = (copied.path / "artifacts" / name for name in ("documents", "shards"))
    alone = [dvc_digest(path) for path in (documents, shards)]
    scheduler = f"tcp://10.77.0.1:{SCHEDULER}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "10.77.0.1", "--port", str(SCHEDULER), "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"]
    members = []
    log = open(tmp_path / "dask.log", "wb")  # noqa: SIM115
    try:
        for node, command in zip(nodes, (dask, worker), strict=True):
            enter = ["ip", "netns", "exec", node, *command]
            members.append(subprocess.Popen(enter, cwd=copied.path, env=copied.environment, stdout=log, stderr=log, start_new_session=True))
        copied.environment["DASK_SCHEDULER_ADDRESS"] = scheduler
        for stage in ("preprocess", "shard"):
            copied.run("ip", "netns", "exec", nodes[0], "dvc", "repro", "--force", "--single-item", stage)
    finally:
        for member in members:
            os.killpg(member.pid, signal.SIGKILL)
            member.wait()
    assert b"Registered to:" in (tmp_path / "dask.log").read_bytes()
    assert [dvc_digest(path) for path in (documents, shards)] == alone
