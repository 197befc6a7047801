"""Digests as DVC makes them, and what of a directory DVC, the digests and the readers take."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import pipeline
from flows.revision import Unusable
from tasks.corpus.documents import Document
from tasks.corpus.readers.files import raw_files, read_file
from tasks.runtime.digests import dvc_digest, tree_sha256


@pytest.mark.slow
def test_digests_are_those_that_dvc_writes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, content in {"b.txt": "two", "a/z.txt": "one", "a.txt": "three", "a/ä.txt": "four", "empty": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (tmp_path / "file").write_text("alone")
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "folder", "file"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    for name in ("folder", "file"):
        written = YAML(typ="safe").load(tmp_path / f"{name}.dvc")["outs"][0]["md5"]
        assert dvc_digest(tmp_path / name) == written


def dvc(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_links_to_files_are_followed_by_dvc_the_digests_and_the_readers_alike(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "more").mkdir(parents=True)
    (tmp_path / "outside.csv").write_text("Question,Answer\nq1,a1\n")
    (data / "a.csv").write_text("Question,Answer\nq2,a2\n")
    (data / "more" / "outside.csv").symlink_to(tmp_path / "outside.csv")
    (data / "more" / "inside.csv").symlink_to(Path("..") / "a.csv")
    (data / "more" / "twice.csv").symlink_to("outside.csv")
    before = dvc_digest(data), tree_sha256(data), raw_files(data)
    assert before[2] == ["a.csv", "more/inside.csv", "more/outside.csv", "more/twice.csv"]
    assert [r.position for name in before[2] for r in read_file(data, name) if isinstance(r, Document)] == ["line 2"] * 4
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "data"]):
        assert dvc(tmp_path, *command).returncode == 0
    assert YAML(typ="safe").load(tmp_path / "data.dvc")["outs"][0]["md5"] == before[0]
    shutil.rmtree(data)
    assert dvc(tmp_path, "checkout", "--quiet").returncode == 0  # DVC brings the files, not the links
    assert (dvc_digest(data), tree_sha256(data), raw_files(data)) == before


def a_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link to a folder": (lambda path: path.symlink_to(path.parents[1] / "folder"), "is a link to a folder"),
    "a link to a folder around it": (lambda path: path.symlink_to(path.parents[1]), "is a link to a folder"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "is a link that leads to no file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "is a link that leads to no file"),
    "a link through a file": (lambda path: path.symlink_to("a.csv/b"), "is a link that leads to no file"),
    "a FIFO": (os.mkfifo, "is a FIFO"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "a socket": (a_socket, "is a socket"),
}


@pytest.mark.parametrize("name", ["odd.csv", ".hidden"])
@pytest.mark.parametrize("kind", ODD)
def test_what_dvc_cannot_version_is_refused_by_name_and_nothing_waits_for_it(tmp_path: Path, kind: str, name: str) -> None:
    make, message = ODD[kind]
    data = tmp_path / "data"
    (data / "more").mkdir(parents=True)
    (data / "folder").mkdir()
    (data / "folder" / "b.csv").write_text("Question,Answer\nq,a\n")
    (data / "more" / "a.csv").write_text("Question,Answer\nq,a\n")
    assert raw_files(data) == ["folder/b.csv", "more/a.csv"]
    make(data / "more" / name)
    for meet in (raw_files, dvc_digest, tree_sha256):
        with pytest.raises(ValueError, match=re.escape(f"{data / 'more' / name} {message}")) as error:
            meet(data)
        assert "\n" not in str(error.value) and ";" in str(error.value)


def test_the_flow_refuses_a_fifo_before_dvc_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    pipeline.check_files()
    os.mkfifo("data/p.csv")
    with pytest.raises(Unusable, match=r"data/p\.csv is a FIFO"):
        pipeline.check_files()
    state = pipeline.version_data.fn()
    assert state.is_failed() and "data/p.csv is a FIFO" in str(state.message)
