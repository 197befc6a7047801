"""The serving log: entries of the audit trail that servers write."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT

from tasks.registry import hash_chain, serving_log
from tasks.registry.serving_log import ServingLog

WRITE = """
import sys
from pathlib import Path
from tasks.registry.serving_log import ServingLog
log = ServingLog(Path(sys.argv[1]))
for number in range(20):
    log.append("serve", "m", str(number), why="a test", evidence="e" * 64)
assert "mlflow" not in sys.modules
"""


def test_entries_of_several_processes_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", WRITE, str(path)]
    writers = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    texts = serving_log.texts(path)
    assert len(texts) == 60 and list(hash_chain.problems(texts)) == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_changed_or_removed_entry_is_named_and_half_a_line_goes(tmp_path: Path) -> None:
    log = ServingLog(path := tmp_path / "log.jsonl")
    for verb in ("serve", "object", "stop"):
        log.append(verb, "m", "3", why="a\ntest", evidence="e" * 64)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged in (b"".join([lines[0], lines[2]]), whole.replace(b"object", b"refuse"), b"".join([lines[1], lines[0], lines[2]])):
        path.write_bytes(damaged)
        assert any("does not follow" in problem for problem in hash_chain.problems(serving_log.texts(path)))
    path.write_bytes(whole + lines[0][:40])  # a server was killed
    log.append("serve", "m", "", why="a test")
    assert path.read_bytes().startswith(whole) and list(hash_chain.problems(serving_log.texts(path))) == []
    assert [json.loads(text)["version"] for text in serving_log.texts(path).values()] == [3, 3, 3, None]


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.touch()
    path.chmod(0o666)
    with pytest.raises(ValueError, match="that nobody else may write"):
        ServingLog(path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        ServingLog(tmp_path / "link")
    with pytest.raises(OSError, match="name another file"):
        ServingLog(tmp_path / "absent" / "log.jsonl")
    ServingLog(tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()
