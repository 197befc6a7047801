"""``torchrun stop_after.py STEP …``: the training process, which asks itself to leave after a step, as a scheduler might."""

import os
import signal
import sys

from tasks.training import __main__ as program
from tasks.training import step_metrics

last = float(sys.argv.pop(1))
sys.argv.insert(1, "worker")
append = step_metrics.Points.append


def append_and_leave(self: step_metrics.Points, point: step_metrics.Point) -> None:
    append(self, point)
    if point["step"] == last:
        os.kill(os.getpid(), signal.SIGTERM)


step_metrics.Points.append = append_and_leave  # type: ignore[method-assign]
program.main()
