"""A PostgreSQL server of Debian's packages on loopback, for tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.project import free_port


@contextmanager
def postgres(*databases: str) -> Iterator[int]:
    """A server with these databases, each open to the user postgres without a password; its port."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    # PostgreSQL refuses to run as root, and its user cannot look into the tests' directories.
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*user, str(programs / program), *arguments], check=True, capture_output=True, cwd="/")

    if user:
        shutil.chown(folder, "postgres")
    try:
        run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D", str(folder / "data"))
        options = f"-p {port} -h 127.0.0.1 -k {folder} -F"
        subprocess.run(
            [*user, str(programs / "pg_ctl"), "start", "--wait", "-D", str(folder / "data"), "-l", str(folder / "log"), "-o", options],
            check=True,
            stdout=subprocess.DEVNULL,  # the server would keep a pipe open
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        try:
            for database in databases:
                run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", database)
            yield port
        finally:
            run("pg_ctl", "stop", "--mode=immediate", "-D", str(folder / "data"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
