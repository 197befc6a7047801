"""``torchrun stop_after.py STEP …``: the training process, which signals itself to stop after a step, as a scheduler might."""

import os
import signal
import sys

from tasks.training import __main__ as program
from tasks.training import step_metrics

last = float(sys.argv.pop(1))
sys.argv.insert(1, "worker")
append = step_metrics.StepMetricsLog.append


def append_and_leave(self: step_metrics.StepMetricsLog, metrics: step_metrics.StepMetrics) -> None:
    append(self, metrics)
    if metrics["step"] == last:
        os.kill(os.getpid(), signal.SIGTERM)


step_metrics.StepMetricsLog.append = append_and_leave  # type: ignore[method-assign]
program.main()
