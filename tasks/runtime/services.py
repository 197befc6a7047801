"""Servers and workers that are kept running: one that ends is started again, a while later each time; in the end all end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.5
SETTLED_SECONDS = 60.0  # what runs so long has started well
MAX_SECONDS = 60.0  # until something is started again
MAX_ENDS = 8  # one after the other, none of them settled


@dataclass
class Service:
    """A command that should always run. What it prints goes into ``log``, or where our own output goes.

    ``kill_group``: what it started is killed when it has ended. A worker's runs end by themselves then, and report how.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    log: Path | None = None
    kill_group: bool = True
    process: "subprocess.Popen[bytes]" = field(init=False)
    _ends: int = field(init=False, default=0)
    _begun: float = field(init=False, default=0.0)
    _due: float | None = field(init=False, default=None)

    def start(self) -> None:
        """In a session of its own: Ctrl-C is for us, who end it in order. It ends with us, too, however we end (runtime/processes.py)."""
        sink = open(self.log, "ab") if self.log else None  # noqa: SIM115
        try:
            arguments = [sys.executable, "-m", "tasks.runtime", *self.command]
            environment = os.environ | self.environment
            self.process = subprocess.Popen(arguments, stdout=sink, stderr=sink, env=environment, start_new_session=True)
        finally:
            if sink:
                sink.close()
        self._begun, self._due = time.monotonic(), None

    def look(self) -> None:
        """Start it again, when that is due; ``SystemExit`` where it ends again and again."""
        now = time.monotonic()
        if self._due is not None:
            if now >= self._due:
                self.start()
        elif (status := self.process.poll()) is not None:
            self._clear()
            self._ends = 1 if now - self._begun > SETTLED_SECONDS else self._ends + 1
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            where = f"; {self.log} says why" if self.log else ""
            if self._ends > MAX_ENDS:
                sys.exit(
                    f"{self.name} ended {self._ends} times, each time within {SETTLED_SECONDS:.0f} s ({how}){where}; all else ends too"
                )
            wait = min(MAX_SECONDS, 2.0 ** (self._ends - 1))
            print(f"{self.name} ended ({how}){where}; it is started again in {wait:.0f} s", flush=True)
            self._due = now + wait

    def end(self) -> None:
        """Send SIGTERM, wait for the process, and kill what it left behind."""
        self.process.terminate()
        self.process.wait()
        self._clear()

    def _clear(self) -> None:
        """End what it left behind, which would hold its port."""
        if self.kill_group:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return


@contextmanager
def kept_running() -> Iterator[list[Service]]:
    """A list to put started services in; each is started again when it ends, until Ctrl-C or SIGTERM, and then all end, the last one
    first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    services: list[Service] = []
    try:
        yield services
        while True:
            for service in services:
                service.look()
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        for service in reversed(services):
            service.end()
