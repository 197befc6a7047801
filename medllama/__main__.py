"""``medllama COMMAND``: use a model without the pipeline: generate, convert, serve, plan what training takes, verify."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

INTERRUPTED = 128 + signal.SIGINT  # exit status after Ctrl-C, as of a shell
# The defaults of the pipeline's params, where the command is installed and there are none in the working directory.
PACKAGED_PARAMS = Path(__file__).with_name("params.yaml")


def _model(command: str, options: Sequence[str]) -> None:
    from model.__main__ import arguments

    parsed = arguments("medllama").parse_args([command, *options])
    parsed.run(parsed)


def _serve(_: str, options: Sequence[str]) -> None:
    _demand_registry(options)
    from serve.__main__ import main

    main(options, prog="medllama serve")


def _plan(command: str, options: Sequence[str]) -> None:
    from tasks.runtime.params import PARAMS
    from tasks.training import command as planning

    parser = argparse.ArgumentParser(prog=f"medllama {command}", description=planning.DESCRIPTION)
    planning.add_options(parser)
    print(planning.plan(parser.parse_args(options), PARAMS if PARAMS.exists() else PACKAGED_PARAMS))


def _verify(command: str, options: Sequence[str]) -> None:
    from tasks.registry.command import add_verify_options, finish, verify

    parser = argparse.ArgumentParser(prog=f"medllama {command}", description="Compare every file of a version with its passport.")
    add_verify_options(parser)
    parsed = parser.parse_args(options)
    if not parsed.deployed or parsed.version:
        _demand_registry([parsed.version or "models:/"])
    finish(command, lambda: verify(parsed))


def _demand_registry(options: Sequence[str]) -> None:
    """``ValueError`` where a version is named, no store is, and none is here; without this check an empty one would be made."""
    from tasks.runtime.settings import setting

    if any(option.startswith("models:/") for option in options) and not (setting("MLFLOW_TRACKING_URI") or Path("mlflow.db").exists()):
        raise ValueError("a registered version is looked up in MLflow: set MLFLOW_TRACKING_URI to its address, or name a directory")


COMMANDS: dict[str, tuple[str, Callable[[str, Sequence[str]], None]]] = {
    "generate": ("stream a continuation of a prompt, or with --chat an answer", _model),
    "serve": ("serve a model over HTTP, as OpenAI's clients expect it, with a web page", _serve),
    "inspect": ("describe a checkpoint: Hugging Face's directory, Meta's, or a GGUF file", _model),
    "convert": ("write a checkpoint in another format", _model),
    "quantize": ("measure what int8 or int4 weights change on a text", _model),
    "verify": ("compare a version or a deployed directory with its passport", _verify),
    "plan": ("say what fine-tuning takes: memory by part, the GPUs that have it, time and energy", _plan),
}


def main() -> None:
    """Run the command that is named; its own parser reads the rest, so that only what it needs is imported."""
    parser = argparse.ArgumentParser(prog="medllama", description="Use a Llama-family model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, _) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    command = parser.parse_args(sys.argv[1:2]).command
    try:
        COMMANDS[command][1](command, sys.argv[2:])
    except (ValueError, OSError) as error:
        sys.exit(f"{command}: {error}")
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        sys.exit(f"{command}: a registered version needs MLflow: pip install 'medllama[registry]'")
    except KeyboardInterrupt:
        print(f"{command}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
