"""What a user sees of a long work: on a terminal of 80 columns, and in a log."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.runtime.words import duration

ROOT = Path(__file__).resolve().parents[3]
WORK = """
import time
from tasks.runtime.progress import progress
bar = progress(total=1234567, unit="tokens", desc="scoring the tuned model")
for _ in range(12):
    time.sleep(0.3)
    bar.note("loss 1.204, 1,300 tokens/s")
    bar.update(100_000)
bar.update(34_567)
bar.close()
"""


def on_a_terminal(code: str) -> str:
    """What a process writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=child, cwd=ROOT, env=os.environ | {"COLUMNS": "80", "TERM": "xterm"})
    os.close(child)
    written = b""
    while True:
        try:
            written += (part := os.read(parent, 4096))
        except OSError:  # the other end is closed
            break
        if not part:
            break
    assert process.wait() == 0
    os.close(parent)
    return written.decode()


def test_a_line_fits_a_terminal_of_80_columns_and_estimates_once_a_rate_is_known() -> None:
    written = on_a_terminal(WORK)
    lines = [line.removesuffix("\x1b[K").strip("\r\n") for line in re.split(r"\r(?!\n)", written) if line.strip()]
    assert len(lines) > 5
    assert all(len(line.removesuffix("\x1b[K")) < 80 for line in lines), lines
    assert lines[0].startswith("scoring the tuned model: 8 %, 100,000 of 1,234,567 tokens")
    assert " left" not in lines[0] and any(" s left" in line for line in lines)
    assert "100 %, 1,234,567 of 1,234,567 tokens, 4 s in all" in lines[-1]
    assert not re.search(r"\d\.\d+k|\?|<", written)
    assert written.count("\n") == 1


def test_a_log_has_whole_lines_without_control_characters_and_few_of_them() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr == "scoring the tuned model: 100 %, 1,234,567 of 1,234,567 tokens, 4 s in all, loss 1.204, 1,300 tokens/s\n"


def test_a_short_work_leaves_no_line_in_a_log() -> None:
    code = "from tasks.runtime.progress import progress\nfor _ in progress(range(3), unit='parts', desc='reading'): pass"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (61, "1 min"),
        (140, "2 min 20 s"),
        (599, "10 min"),
        (1500, "25 min"),
        (3900, "65 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_duration_is_as_exact_as_a_reader_needs(seconds: float, words: str) -> None:
    assert duration(seconds) == words
