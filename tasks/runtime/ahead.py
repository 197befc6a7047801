"""A module that takes seconds to import is imported in a process of its own, while this one works.

    with started_ahead("tasks.corpus.expectations") as call:
        …                                    # meanwhile the process imports the module
        gate = call("check_files", *arguments)

The process is ``python -m tasks.runtime.ahead MODULE FD``: it takes requests from standard input and answers through the pipe FD, both
pickled. It ends when its input does, so also when this process dies.
"""

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tasks.runtime.processes import interrupts_held

ROOT = Path(__file__).resolve().parents[2]
NICE = 5  # what works meanwhile comes first


class Call(Protocol):
    """Runs a function of the module in its process and waits for the result.

    A ``ValueError`` or ``OSError`` of the function is raised here; any other ends the process, which raises ``OSError``.
    """

    def __call__(self, function: str, *arguments: Any) -> Any: ...


@contextmanager
def started_ahead(module: str) -> Iterator[Call]:
    """A process that imports ``module`` now; what is yielded calls its functions. Arguments and results must pickle."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tasks.runtime.ahead", module, str(writing)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # the working directory may be another
    with interrupts_held():  # Ctrl-C is for this process; the other ends with its input
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writing,), env=os.environ | {"PYTHONPATH": path})
    os.close(writing)
    with open(reading, "rb") as answers:

        def call(function: str, *arguments: Any) -> Any:
            assert process.stdin
            try:
                pickle.dump((function, arguments), process.stdin)
                process.stdin.flush()
                result, error = pickle.load(answers)
            except (EOFError, BrokenPipeError):
                raise OSError(f"the process that was to run {module} ended with status {process.wait()}") from None
            if error:
                raise error
            return result

        try:
            yield call
        finally:
            process.kill()  # every call has returned, so it does nothing but import or wait
            process.communicate()


def _serve(functions: Callable[[str], Callable[..., Any]], answers: Any) -> None:
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: tuple[Any, Exception | None] = functions(function)(*arguments), None
        except (ValueError, OSError) as error:
            answer = None, type(error)(*error.args) if type(error).__module__ == "builtins" else ValueError(str(error))
        sys.stdout.flush()
        pickle.dump(answer, answers)
        answers.flush()


def main() -> None:
    """Import the module, then answer."""
    from tasks.runtime.processes import end_with_parent

    end_with_parent()
    os.nice(NICE)
    module, descriptor = sys.argv[1:]
    imported = importlib.import_module(module)
    with open(int(descriptor), "wb") as answers:
        _serve(lambda name: getattr(imported, name), answers)


if __name__ == "__main__":
    main()
