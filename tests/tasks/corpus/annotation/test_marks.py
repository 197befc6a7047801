"""The file of marks: whole at every instant, for its owner alone, without text; what does not fit is refused."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.annotated import COMMAND, environment, write_notes
from helpers.project import ROOT

from tasks.corpus.annotation.marks import Mark, Marks, NoteMarks, Sample, locked

DEFAULT = Sample(notes=200, seed=2026)
HEAD = b'{"format": 1, "sample": {"notes": 1, "seed": 1}, "notes": '
NAME = Mark(start=3, end=8, verdict="missed", type="NAME")


def test_marks_outlive_the_process_and_keep_the_sample(tmp_path: Path) -> None:
    with locked(tmp_path / "annotation"):
        marks = Marks(tmp_path / "annotation", default=DEFAULT, notes=20, seed=7)
        marks.save("ab", NoteMarks(digest="d", done=True, revision=1, marks=(NAME, Mark(start=9, end=12, verdict="wrong"))))
        marks.save("cd", NoteMarks(digest="e"))
    read = Marks(tmp_path / "annotation", default=DEFAULT)
    assert read.notes == marks.notes and read.sample == Sample(notes=20, seed=7)
    assert Marks(tmp_path / "annotation", default=DEFAULT, notes=300).sample == Sample(notes=300, seed=7)
    for path in (tmp_path / "annotation").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "annotation").stat().st_mode) == 0o700
    assert {path.name for path in (tmp_path / "annotation").iterdir()} == {"marks.json", "lock"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": 2, "sample": {"notes": 1, "seed": 1}, "notes": {}}',
        HEAD + b'{"a": {"digest": "d", "marks": [{"start": 5, "end": 5, "verdict": "wrong"}]}}}',
        HEAD + b'{"a": {"digest": "d", "text": "Quillfeather"}}}',
    ],
)
def test_a_file_of_something_else_is_kept_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "marks.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"marks\.json is no file of marks that this version reads .*; move it away") as messages:
        Marks(tmp_path, default=DEFAULT)
    assert "Quillfeather" not in str(messages.value) and (tmp_path / "marks.json").read_bytes() == content


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "missed"},
        {"verdict": "missed", "type": "PET"},
        {"verdict": "wrong", "type": "NAME"},
        {"verdict": "wrong", "start": -1},
        {"verdict": "wrong", "start": 2.5},
        {"verdict": "wrong", "end": 1},
        {"verdict": "well"},
    ],
)
def test_a_mark_that_says_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Mark.model_validate_json(json.dumps({"start": 1, "end": 2} | wrong))


def test_a_second_annotation_is_refused_while_the_first_runs_and_not_after_it_died(tmp_path: Path) -> None:
    hold = "import sys; from pathlib import Path; from tasks.corpus.annotation.marks import locked\n"
    hold += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout and first.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use: another annotation runs"), locked(tmp_path):
            pass
        first.kill()
    with locked(tmp_path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--notes", "0"], "--notes 0: a sample has 1 to 5,000 notes"),
        (["--port", "70000"], "port 70000 of 127.0.0.1 cannot be used"),
        (["--report"], "no note is finished; begin with: python -m tasks.corpus annotate"),
        (["--report", "--seed", "1"], "--report takes the notes that are finished"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(tmp_path: Path, options: list[str], message: str) -> None:
    write_notes(tmp_path, [("p", "Seen by Dr. Quillfeather.")])
    result = subprocess.run([*COMMAND, *options], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2) and message in result.stderr and "Traceback" not in result.stderr
