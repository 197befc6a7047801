"""``python -m tasks.training plan``: what a fine-tuning run will need, before it starts."""

import argparse
import sys
from pathlib import Path

from tasks.training import command


def arguments() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m tasks.training", description="Fine-tuning, outside of its stage.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan_parser = commands.add_parser("plan", help=command.SUMMARY, description=command.DESCRIPTION)
    plan_parser.set_defaults(run=plan)
    command.add_options(plan_parser)
    worker = commands.add_parser("worker", help="one of the processes that torchrun starts for the stage")
    worker.set_defaults(run=work)
    for name in ("base", "shards", "key", "params"):
        worker.add_argument(name)
    return parser


def plan(options: argparse.Namespace) -> None:
    """Print the plan for params.yaml with the options that were given."""
    from tasks.runtime.params import PARAMS
    from tasks.runtime.permissions import close_to_others

    close_to_others()
    print(command.plan(options, PARAMS))


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
