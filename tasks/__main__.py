"""``python -m tasks STAGE …`` runs a stage's module as ``python -m`` would, with Ctrl-C held until the stage takes it.

So it also ends in a sentence while a module still imports; before that nothing but the standard library is imported. Stages are typed
``python -m tasks.STAGE``; dvc.yaml has this longer way for what interrupts them. ``check_params`` checks params.yaml alone.
"""

import runpy
import signal
import sys


def main() -> None:
    """Run the stage that the first argument names, as ``python -m`` would."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until run_stage takes it
    if len(sys.argv) < 2:
        sys.exit("usage: python -m tasks STAGE PATH …  (dvc.yaml has the paths)")
    del sys.argv[0]
    if sys.argv[0] == "check_params":
        from tasks.stage import check_params, run_stage

        run_stage(check_params, record=False)
    else:
        runpy.run_module(f"tasks.{sys.argv[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
