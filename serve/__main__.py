"""``python -m serve models:/medical-llm@champion | DIR``: the server, until SIGTERM, which lets running requests end first."""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serve.api import application
from serve.connection import Connection
from serve.models import REGISTRY, EngineOptions, ModelRefused, model_id, read_tasks
from serve.preferences import PreferenceFile
from serve.rollout import ModelRollout, Rollout
from serve.security import API_KEYS, API_KEYS_FILE, Limits, SecurityMiddleware, allow_origins, is_loopback, read_api_keys
from tasks.registry import serving_log
from tasks.runtime.permissions import close_project

POLL_SECONDS = 3.0


class Server(uvicorn.Server):
    """The first signal refuses new requests and lets running ones end; the second one ends the server at once."""

    def __init__(self, config: uvicorn.Config, middleware: SecurityMiddleware):
        super().__init__(config)
        self._middleware = middleware

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by uvicorn for SIGTERM and SIGINT."""
        self.should_exit = self.force_exit = self._middleware.draining
        self._middleware.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to end: also when the server is draining and no request is running."""
        ended = await super().on_tick(counter)
        return ended or (self._middleware.draining and not self._middleware.running)


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m serve") -> None:
    """Read the options, of this process where none are given, and serve; exit with a message of one line if that is not possible."""
    options = _parser(prog).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        close_project()
        _serve(options)
    except (ValueError, OSError, ModelRefused) as error:
        sys.exit(f"serve: {error}")


def _parser(prog: str = "python -m serve") -> argparse.ArgumentParser:
    limits = Limits()
    key_help = f"address to listen on; beyond loopback {API_KEYS} or {API_KEYS_FILE} must be set (default 127.0.0.1)"
    parser = argparse.ArgumentParser(prog=prog, description="Serve a model over HTTP, as OpenAI's clients expect it.")
    parser.add_argument("model", help="models:/NAME@ALIAS, which is followed, models:/NAME/NUMBER, or a checkpoint directory")
    parser.add_argument("--compare-with", metavar="MODEL", help="a second model to compare with")
    parser.add_argument("--beside", dest="compare_with", help=argparse.SUPPRESS)  # the older name of --compare-with
    adapter_help = (
        "an adapter of MODEL that clients call NAME; SOURCE is as MODEL, of a version that was trained with one, or a directory in PEFT's "
        "format; may be given several times"
    )
    parser.add_argument("--adapter", metavar="NAME=SOURCE", action="append", default=[], help=adapter_help)
    parser.add_argument("--host", default="127.0.0.1", help=key_help)
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000)")
    origin_help = "origin of pages that may use the server, as http://localhost:3000; may be given several times"
    parser.add_argument("--allow-origin", metavar="ORIGIN", action="append", default=[], help=origin_help)
    parser.add_argument("--slots", type=int, default=16, help="sequences that are decoded at the same time (default 16)")
    parser.add_argument("--quantize", choices=["int8", "int4"], help="serve with 8-bit or 4-bit weights, which are read faster")
    parser.add_argument("--max-len", type=int, default=2048, help="tokens of a prompt and its answer together, at most (default 2048)")
    tasks_help = "tasks.json with the extraction tasks of a directory that holds none, for the page"
    parser.add_argument("--tasks", metavar="FILE", type=Path, help=tasks_help)
    preferences_help = "file of mode 0600 to which votes on compared answers are appended, with prompts and answers"
    parser.add_argument("--preferences", metavar="FILE", type=Path, help=preferences_help)
    log_help = (
        "file to which is appended which version answers from when until when, for the audit trail "
        f"(default {serving_log.FILE}, where MODEL or another is registered)"
    )
    parser.add_argument("--serving-log", metavar="FILE", type=Path, help=log_help)
    parser.add_argument("--unverified", action="store_true", help="also serve a model that does not verify, or has no passport")
    parser.add_argument(
        "--max-body", type=int, default=limits.max_body_bytes, help=f"bytes of a request's body (default {limits.max_body_bytes})"
    )
    parser.add_argument(
        "--max-waiting", type=int, default=limits.max_waiting, help=f"sequences that may wait for a slot (default {limits.max_waiting})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=limits.answer_seconds,
        help=f"time after which an answer ends (default {limits.answer_seconds:.0f})",
    )
    return parser


def _serve(options: argparse.Namespace) -> None:
    if min(options.slots, options.max_len, options.max_body, options.max_waiting) < 1 or not options.seconds > 0:
        raise ValueError("slots, lengths and limits must be above 0")
    keys, loopback = read_api_keys(os.environ), is_loopback(options.host)
    if not (keys or loopback):
        raise ValueError(f"on {options.host} others can reach it: set {API_KEYS} or {API_KEYS_FILE}")
    preferences = PreferenceFile(options.preferences) if options.preferences else None
    tasks = read_tasks(options.tasks) if options.tasks else {}
    engine_options = EngineOptions(options.slots, options.max_len, options.max_waiting, options.unverified, options.quantize, tasks)
    sources = _sources(options.model, options.compare_with)
    adapters = _adapters(options.adapter, sources)
    if not options.serving_log and any(source.startswith(REGISTRY) for source in (*sources.values(), *adapters.values())):
        options.serving_log = serving_log.FILE
    log = serving_log.ServingLog(options.serving_log) if options.serving_log else None
    rollouts = _open(sources, adapters, engine_options, log)
    limits = Limits(max_body_bytes=options.max_body, max_waiting=options.max_waiting, answer_seconds=options.seconds)
    middleware = application(rollouts, keys=keys, limits=limits, loopback=loopback, preferences=preferences)
    app = allow_origins(middleware, options.allow_origin, has_key=bool(keys)) if options.allow_origin else middleware
    for name, rollout in rollouts.items():
        print(f"{name}: {_state(rollout)}", flush=True)
    Server(_uvicorn_config(app, options.host, options.port), middleware).run()
    for rollout in rollouts.values():
        rollout.close(0)


def _sources(model: str, compare_with: str | None) -> dict[str, str]:
    """The models to open, by the names that clients use; ``ValueError`` if both would have the same name."""
    sources = {model_id(model, compared=False): model}
    if compare_with:
        sources.setdefault(name := model_id(compare_with, compared=True), compare_with)
        if sources[name] != compare_with or len(sources) < 2:
            raise ValueError(f"both models would be called {name}")
    return sources


def _adapters(arguments: Sequence[str], sources: Mapping[str, str]) -> dict[str, str]:
    """Sources of adapters by name; ``ValueError`` for one that has no name of its own."""
    adapters: dict[str, str] = {}
    for argument in arguments:
        name, _, source = argument.partition("=")
        if not name or not source:
            raise ValueError(f"--adapter {argument} must be NAME=SOURCE")
        if name in (*sources, *adapters):
            raise ValueError(f"two models would be called {name}")
        adapters[name] = source
    return adapters


def _open(
    sources: Mapping[str, str], adapters: Mapping[str, str], options: EngineOptions, log: serving_log.ServingLog | None
) -> dict[str, Rollout]:
    """The models, then the adapters, which are of the first."""
    models: dict[str, Rollout] = {}
    for name, source in sources.items():
        models[name] = ModelRollout(source, options, poll_seconds=POLL_SECONDS, adapters={} if models else adapters, log=log)
    return models | {name: adapter for model in models.values() for name, adapter in model.adapters.items()}


def _state(rollout: Rollout) -> str:
    if not (served := rollout.served):
        return "withdrawn, no version has its alias"
    return served.fingerprint + ("" if served.verified else ", not verified")


def _uvicorn_config(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        http=Connection,
        ws="none",
    )


if __name__ == "__main__":
    main()
