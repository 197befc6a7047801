"""``python -m tasks.training plan``: what a fine-tuning run will need, before it starts."""

import argparse
import sys
from pathlib import Path


def arguments() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m tasks.training", description="Fine-tuning, outside of its stage.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "say what a run takes: memory by part, the GPUs that have it, time and energy"
    plan_parser = commands.add_parser(
        "plan",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. Only arithmetic, and a second in which this machine's rate is measured.",
    )
    plan_parser.set_defaults(run=plan)
    plan_parser.add_argument("--size", help="a model by name, such as llama-3.1-8b (default: the one in artifacts/base)")
    plan_parser.add_argument("--mode", help="as finetune.mode in params.yaml")
    plan_parser.add_argument("--gpus", type=int, default=1)
    plan_parser.add_argument("--seq", type=int, dest="seq_len", help="tokens per row")
    plan_parser.add_argument("--batch", type=int, help="rows per step")
    plan_parser.add_argument("--micro-batch", type=int, help="rows per forward pass")
    plan_parser.add_argument("--steps", type=int)
    plan_parser.add_argument("--epochs", type=float, help="in place of steps")
    plan_parser.add_argument("--activation-checkpointing", action="store_true", default=None)
    plan_parser.add_argument("--compile", action="store_true", default=None)
    plan_parser.add_argument(
        "--mfu", type=float, help="share of a GPU's bfloat16 rate that training reaches (default: as measured on an H100)"
    )
    plan_parser.add_argument("--shards", type=Path, help="(default artifacts/shards)")
    worker = commands.add_parser("worker", help="one of the processes that torchrun starts for the stage")
    worker.set_defaults(run=work)
    for name in ("base", "shards", "key", "params"):
        worker.add_argument(name)
    return parser


def plan(options: argparse.Namespace) -> None:
    """Print the plan for params.yaml with the options that were given."""
    from tasks.runtime.permissions import close_to_others
    from tasks.training import plan as planning

    close_to_others()
    given = {name: value for name, value in vars(options).items() if value is not None and name not in ("run", "command")}
    print(planning.plan(**{name: given.pop(name) for name in ("size", "gpus", "mfu", "shards") if name in given}, changes=given))


def work(options: argparse.Namespace) -> None:
    """Train as one process of the group that torchrun started."""
    from tasks.runtime.processes import end_with_parent
    from tasks.training.distributed import process_group
    from tasks.training.loop import train
    from tasks.training.params import FinetuneParams

    end_with_parent()
    params = FinetuneParams.model_validate_json(options.params)
    with process_group() as group:
        train(Path(options.base), Path(options.shards), options.key, params, group)


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    options = arguments().parse_args()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{'finetune' if options.command == 'worker' else options.command}: {error}")
    except KeyboardInterrupt:
        from tasks.runtime.processes import INTERRUPTED

        print(f"{options.command}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
