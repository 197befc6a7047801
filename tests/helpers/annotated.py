"""Projects with notes to annotate, figures that somebody measured, and the annotation's server in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from helpers.project import ROOT
from tasks.corpus.annotation.figures import Figures, Rate, Share
from tasks.corpus.annotation.marks import Marks, Sample
from tasks.corpus.annotation.notes import Note
from tasks.corpus.annotation.server import application, listen
from tasks.corpus.annotation.session import Session, Source
from tasks.corpus.params import PreprocessParams
from tasks.runtime.params import read_section

COMMAND = (sys.executable, "-m", "tasks.corpus", "annotate")


def write_notes(folder: Path, notes: Sequence[tuple[str, str]], name: str = "notes.jsonl") -> None:
    """A raw file of notes, (patient, text) each, in a project's ``data/``, with the params of this one."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    lines = (json.dumps({"text": text, "group": patient, "id": f"{name}{i}"}) for i, (patient, text) in enumerate(notes))
    (folder / "data" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def environment() -> dict[str, str]:
    """That of a command which runs in another folder than the code's."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


@contextmanager
def annotating(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server over the notes of a folder; its address, token included, and its process, which is ended by SIGTERM."""
    with open(folder / "server.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *options], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout
    try:
        for line in process.stdout:
            if match := re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", line):
                yield match.group(), process
                return
        raise AssertionError(f"the server ended with status {process.wait()}: {(folder / 'server.log').read_text(encoding='utf-8')}")
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def served(folder: Path, notes: Sequence[Note], token: str = "the-token") -> Iterator[tuple[str, Session]]:
    """The server over notes that are there already, in a thread; its address and the session. The folder has ``data/`` and params."""
    marks = Marks(folder / "annotation", default=Sample(notes=len(notes), seed=1))
    session = Session(notes, marks, Source(folder / "data", read_section("preprocess", PreprocessParams, folder / "params.yaml")))
    bound = listen(0)
    port = bound.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application(session, token, port), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/{token}/", session
    finally:
        server.should_exit = True
        thread.join(20)


def share(name: str, total: int, count: int) -> Share:
    return Share(name=name, notes=total, total=total, count=count, share=count / total, low=0.5, high=1.0)


def made_up_figures(rules: str = "0" * 64, data: str = "1" * 32) -> Figures:
    """Figures as a report measures them."""
    return Figures(
        date="2026-11-28",
        seed=2026,
        rules=rules,
        data=data,
        notes=8,
        words=1000,
        recall=[share("all", 8, 6), share("NAME", 4, 3)],
        damage=[share("all", 5, 1)],
        missed=share("missed", 8, 2),
        damaged=share("damaged", 8, 1),
        wrong_per_1000_words=Rate(value=1.0, low=0.0, high=3.0),
        mistyped=0,
        lost=0,
        unjudged=2,
    )
