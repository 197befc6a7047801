"""Runs a stage's module as ``python -m`` would, with Ctrl-C held until the stage takes it: ``python -m tasks.run STAGE …``.

So it also ends in a sentence while a module still imports; before that nothing but the standard library is imported.
"""

import runpy
import signal
import sys


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until run_stage takes it
    del sys.argv[0]
    runpy.run_module(f"tasks.{sys.argv[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
