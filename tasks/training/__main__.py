"""``python -m tasks.training plan``: what a fine-tuning run will take, before it takes it."""

import argparse
import sys
from pathlib import Path


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.training", description="Fine-tuning, outside of its stage.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    what = "say what a run takes: memory by part, the GPUs that have it, time and energy"
    planned = commands.add_parser("plan", help=what, description=f"{what[0].upper()}{what[1:]}. Only arithmetic; nothing is run.")
    planned.set_defaults(run=plan)
    planned.add_argument("--size", help="a model by name, such as llama-3.1-8b (default: the one in artifacts/base)")
    planned.add_argument("--mode", help="as finetune.mode in params.yaml")
    planned.add_argument("--gpus", type=int, default=1)
    planned.add_argument("--seq", type=int, dest="seq_len", help="tokens per row")
    planned.add_argument("--batch", type=int, help="rows per step")
    planned.add_argument("--micro-batch", type=int, help="rows per forward pass")
    planned.add_argument("--steps", type=int)
    planned.add_argument("--recompute", action="store_true", default=None, dest="activation_checkpointing")
    planned.add_argument("--compile", action="store_true", default=None)
    planned.add_argument("--mfu", type=float, help="share of a GPU's bfloat16 rate that training reaches (default 0.35)")
    planned.add_argument("--shards", type=Path, help="(default artifacts/shards)")
    worker = commands.add_parser("worker", help="one of the processes that torchrun starts for the stage")
    worker.set_defaults(run=work)
    for name in ("base", "shards", "key", "params"):
        worker.add_argument(name)
    return parser


def plan(options: argparse.Namespace) -> None:
    from tasks.runtime.permissions import close_to_others
    from tasks.training import plan as planning

    close_to_others()
    told = {name: value for name, value in vars(options).items() if value is not None and name not in ("run", "command")}
    print(planning.plan(**{name: told.pop(name) for name in ("size", "gpus", "mfu", "shards") if name in told}, changes=told))


def work(options: argparse.Namespace) -> None:
    from tasks.runtime.processes import end_with_parent
    from tasks.training.distributed import team
    from tasks.training.loop import train
    from tasks.training.params import FinetuneParams

    end_with_parent()
    params = FinetuneParams.model_validate_json(options.params)
    with team() as us:
        train(Path(options.base), Path(options.shards), options.key, params, us)


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    options = arguments().parse_args()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{'finetune' if options.command == 'worker' else options.command}: {error}")


if __name__ == "__main__":
    main()
