"""What setup says of a machine before it downloads anything: which Python, and each lack with its remedy."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from setup import preflight

ROOT = Path(__file__).resolve().parents[2]
BASE = getattr(sys, "_base_executable", sys.executable)


def choose_python(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("bash") or "bash", str(ROOT / "setup" / "python")]
    return subprocess.run(command, env={"PATH": str(path)} | environment, capture_output=True, text=True, check=False)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


OLD = 'case "$1" in --version) echo Python 3.9.18 ;; esac'


class TestWhichPython:
    def test_the_first_that_fits_is_taken_and_an_old_one_is_not(self, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "python3", OLD)
        (tmp_path / "bin" / f"python3.{sys.version_info[1]}").symlink_to(BASE)
        result = choose_python(tmp_path / "bin")
        assert result.returncode == 0
        assert Path(result.stdout.strip()).resolve() == Path(BASE).resolve()

    @pytest.mark.parametrize(
        ("tool", "script", "command"),
        [
            ("uv", "exit 2", "uv python install 3.13"),
            ("apt-cache", 'test "$2" = python3.12-venv', "sudo apt-get install python3.12-venv"),
            ("brew", "", "brew install python@3.13"),
            ("none", "", "make PYTHON=/path/to/python3.13"),
        ],
    )
    def test_where_none_fits_one_line_says_what_to_type(self, tool: str, script: str, command: str, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "python3", OLD)
        program(tmp_path / "bin" / tool, script)
        result = choose_python(tmp_path / "bin")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"Python 3.11 to 3.14 is needed (Python 3.9.18). Type: {command}\n"

    def test_one_that_uv_keeps_is_taken_and_none_is_fetched(self, tmp_path: Path) -> None:
        program(tmp_path / "bin" / "uv", f'case "$*" in *--no-python-downloads*) echo "{BASE}" ;; *) exit 1 ;; esac')
        assert Path(choose_python(tmp_path / "bin").stdout.strip()).resolve() == Path(BASE).resolve()

    def test_the_one_that_is_named_must_fit(self, tmp_path: Path) -> None:
        assert choose_python(tmp_path, PYTHON=sys.executable).stdout.strip() == BASE
        result = choose_python(tmp_path, PYTHON=str(program(tmp_path / "bin" / "python", OLD)))
        assert result.returncode == 1 and result.stderr.count("\n") == 1
        assert "does not fit (Python 3.9.18). Type: make PYTHON=" in result.stderr


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a download as zip leaves it, in a path with blanks, for an account that has not named itself to git."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    folder = tmp_path / "with blanks"
    folder.mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


def commands(text: str) -> list[str]:
    return [line.partition("remedy: ")[2] for line in text.splitlines() if "remedy: " in line]


def test_a_download_as_zip_becomes_a_repository_by_what_is_said(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not preflight.preflight(download)
    output = capsys.readouterr().out
    assert "problem: the folder is no git repository" in output and max(map(len, output.splitlines())) <= 80
    for command in commands(output):
        words = shlex.split(command)
        if words[0] == "git":
            subprocess.run(words, cwd=download, check=True)
    assert preflight.preflight(download)
    assert "problem" not in capsys.readouterr().out


def test_a_folder_in_another_repository_is_no_clone(download: Path) -> None:
    for command in (
        ["git", "init", "--quiet"],
        ["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--allow-empty", "-mx"],
    ):
        subprocess.run(command, cwd=download.parent, check=True)
    assert [finding.lack[:36] for finding in preflight.check_git(download)] == ["the folder is no git repository with"]


def test_without_git_it_is_named(download: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(download))
    (finding,) = preflight.check_git(download)
    assert finding.stops and finding.lack == "there is no git"


def test_without_a_compiler_setup_goes_on(download: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    (finding,) = preflight.check_compiler(download)
    assert not finding.stops and "(no-such-compiler): generation on the CPU will be slower" in finding.lack


def test_a_disk_that_is_nearly_full_stops_it(download: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(download).free / 1e9
    monkeypatch.setattr(preflight, "NEEDED_GB", free + 1)
    assert [finding.stops for finding in preflight.check_disk(download)] == [True]
    monkeypatch.setattr(preflight, "NEEDED_GB", free - 1)
    monkeypatch.delenv("TORCH", raising=False)
    (finding,) = preflight.check_disk(download)
    assert not finding.stops and finding.remedy == "make setup TORCH=cpu"
    monkeypatch.setenv("TORCH", "cpu")
    assert not list(preflight.check_disk(download))


def test_a_path_that_no_path_variable_can_hold_stops_it(download: Path) -> None:
    folder = download / "a:b"
    folder.mkdir()
    (finding,) = preflight.check_folder(folder)
    assert finding.stops and "holds ':'" in finding.lack
    assert not list(preflight.check_folder(download))
