"""Processes that end with the one that started them: ``python -m tasks.lifetime COMMAND …`` runs a command so.

DVC goes on when what started it is killed, and so does a stage when DVC is; nobody would look after either.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process, and to what it executes, when its parent ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    end_with_parent()
    # Who was started in the background of a script has SIGINT ignored; DVC needs it to leave its lock clean.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
