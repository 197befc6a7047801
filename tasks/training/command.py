"""The command ``plan``: its options, and the plan that they ask for. It knows nothing of the program that it is a command of."""

import argparse
from pathlib import Path

SUMMARY = "say what a run takes: memory by part, the GPUs that have it, time and energy"
DESCRIPTION = f"{SUMMARY[0].upper()}{SUMMARY[1:]}. Only arithmetic, and a second in which this machine's rate is measured."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of the plan; what is not given comes from the params."""
    parser.add_argument("--size", help="a model by name, such as llama-3.1-8b (default: the one in artifacts/base)")
    parser.add_argument("--mode", help="as finetune.mode in params.yaml")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--seq", type=int, dest="seq_len", help="tokens per row")
    parser.add_argument("--batch", type=int, help="rows per step")
    parser.add_argument("--micro-batch", type=int, help="rows per forward pass")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--epochs", type=float, help="in place of steps")
    parser.add_argument("--activation-checkpointing", action="store_true", default=None)
    parser.add_argument("--compile", action="store_true", default=None)
    parser.add_argument("--mfu", type=float, help="share of a GPU's bfloat16 rate that training reaches (default: as measured on an H100)")
    parser.add_argument("--shards", type=Path, help="(default artifacts/shards)")


def plan(options: argparse.Namespace, params: Path) -> str:
    """The plan for the file ``params`` with the options that were given; ``ValueError`` as ``tasks.training.plan.plan``."""
    from tasks.training import plan as planning

    given = {name: value for name, value in vars(options).items() if value is not None and name not in ("run", "command")}
    named = {name: given.pop(name) for name in ("size", "gpus", "mfu", "shards") if name in given}
    return planning.plan(**named, params_file=params, changes=given)
