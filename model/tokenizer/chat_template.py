"""Chat templates, rendered in a process of their own: a template may come from anywhere, and only a process bounds its time and memory.

It knows nothing of tokens. The process is this file run as a program; it ends with the one that started it.
"""

import atexit
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
from datetime import date
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Of one rendering, in seconds of the processor (so that a busy machine refuses nothing) and bytes; good ones take milliseconds.
MAX_SECONDS, MAX_MEMORY = 2, 512 << 20
# Characters of a template, of which those of known models have up to 20,000, and of what it writes.
MAX_TEMPLATE_CHARS, MAX_TEXT_CHARS = 1 << 20, 1 << 24
# The same prompt has the same ids on every day. Llama 3.1's and 3.2's templates write this date where they get none.
TODAY = date(2024, 7, 26)


def render(template: str, values: dict[str, Any]) -> str:
    """The text that a template writes, as in transformers (utils/chat_template_utils.py), except that every day is ``TODAY``.

    ``ValueError`` where it fails, or takes more than ``MAX_SECONDS`` or ``MAX_MEMORY``.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"the chat template has {len(template):,} characters; at most {MAX_TEMPLATE_CHARS:,} are read")
    answer = _renderer.answer(json.dumps({"template": template, "values": values}).encode() + b"\n")
    if "error" in answer:
        raise ValueError(f"the chat template failed: {answer['error']}")
    return str(answer["text"])


class _Renderer:
    """The process that renders; started by the first template, and again after one that it did not survive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, request: bytes) -> dict[str, Any]:
        with self._lock:
            try:
                answer = self._exchanged(request)
            except BaseException:  # an answer that nobody reads would be the next one's
                self.end()
                raise
            if answer.endswith(b"\n"):
                return dict(json.loads(answer))
            raise _failure(self.end())

    def _exchanged(self, request: bytes) -> bytes:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-I", __file__]
            # In a session of its own: Ctrl-C is for the one who started it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            return b""
        return self._process.stdout.readline()

    def end(self) -> int:
        """End the process; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        with process:
            return process.wait()


def _failure(status: int) -> Exception:
    if status == -signal.SIGXCPU:
        return ValueError(f"the chat template failed: it takes more than {MAX_SECONDS} seconds to render")
    if status < 0:
        return ValueError(f"the chat template failed: it ended the process that renders it ({signal.Signals(-status).name})")
    return RuntimeError(f"the process that renders chat templates does not run ({sys.executable} -I {__file__}: exit status {status})")


_renderer = _Renderer()
atexit.register(_renderer.end)
os.register_at_fork(after_in_child=_renderer.__init__)  # type: ignore[misc]


class Generation(Extension):
    """``{% generation %}``, with which templates mark what transformers counts as an answer; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        """The nodes inside of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(8)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.globals |= {"raise_exception": _raise, "strftime_now": TODAY.strftime}
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment.from_string(template)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _answer(template: str, values: dict[str, Any]) -> dict[str, str]:
    try:
        text = _compiled(template).render(**values)
    except MemoryError:
        return {"error": f"it takes more than {MAX_MEMORY >> 20} MiB of memory"}
    except Exception as error:  # a template that is not ours can fail in any way
        return {"error": str(error)[:1000] or type(error).__name__}
    return {"text": text} if len(text) <= MAX_TEXT_CHARS else {"error": f"it writes more than {MAX_TEXT_CHARS:,} characters"}


def main() -> None:
    """Answer requests, one a line, until there are no more."""
    _limit(resource.RLIMIT_AS, MAX_MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    for line in sys.stdin.buffer:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + MAX_SECONDS)
        answer = json.dumps(_answer(**json.loads(line)))
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


def _limit(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
