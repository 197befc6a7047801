"""``python -m serve models:/medical-llm@champion | DIR``: the server, until SIGTERM, which lets running requests end first."""

import argparse
import logging
import os
import sys
from types import FrameType

import uvicorn

from serve.api import application
from serve.connection import Connection
from serve.models import Opening, RefusedError, id_of
from serve.rollout import Rollout
from serve.trust import KEYS, KEYS_FILE, Limits, Trust, is_loopback, keys_of
from tasks.runtime.permissions import close_project

POLL_SECONDS = 3.0


class Server(uvicorn.Server):
    """The first signal makes it take nothing new and end when what runs has; the second ends it now."""

    def __init__(self, config: uvicorn.Config, trust: Trust):
        super().__init__(config)
        self._trust = trust

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.should_exit = self.force_exit = self._trust.draining
        self._trust.draining = True

    async def on_tick(self, counter: int) -> bool:
        ended = await super().on_tick(counter)
        return ended or (self._trust.draining and not self._trust.running)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serve", description="Serve a model over HTTP, as OpenAI's clients expect it.")
    parser.add_argument("model", help="models:/NAME@ALIAS, which is followed, models:/NAME/NUMBER, or a checkpoint directory")
    parser.add_argument("--beside", metavar="MODEL", help="a second model to compare with")
    parser.add_argument("--host", default="127.0.0.1", help=f"beyond loopback {KEYS} or {KEYS_FILE} must be set (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--slots", type=int, default=16, help="requests that are answered at the same time (default 16)")
    parser.add_argument("--max-len", type=int, default=2048, help="tokens of a prompt with its answer, at most (default 2048)")
    parser.add_argument("--unverified", action="store_true", help="serve what has no passport, or is not what its passport says")
    limits = Limits()
    parser.add_argument("--max-body", type=int, default=limits.body, help=f"bytes (default {limits.body})")
    parser.add_argument("--max-waiting", type=int, default=limits.waiting, help=f"requests that may wait (default {limits.waiting})")
    parser.add_argument("--seconds", type=float, default=limits.seconds, help=f"after which an answer ends (default {limits.seconds:.0f})")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        close_project()
        _serve(options)
    except (ValueError, OSError, RefusedError) as error:
        sys.exit(f"serve: {error}")


def _serve(options: argparse.Namespace) -> None:
    if min(options.slots, options.max_len, options.max_body, options.max_waiting) < 1 or not options.seconds > 0:
        raise ValueError("slots, lengths and limits must be above 0")
    keys, loopback = keys_of(os.environ), is_loopback(options.host)
    if not (keys or loopback):
        raise ValueError(f"on {options.host} others can reach it: set {KEYS} or {KEYS_FILE}")
    how = Opening(options.slots, options.max_len, options.max_waiting, options.unverified)
    wanted = {id_of(options.model, beside=False): options.model}
    if options.beside:
        wanted.setdefault(name := id_of(options.beside, beside=True), options.beside)
        if wanted[name] != options.beside or len(wanted) < 2:
            raise ValueError(f"both models would be called {name}")
    rollouts = {name: Rollout(which, how, seconds=POLL_SECONDS) for name, which in wanted.items()}
    limits = Limits(body=options.max_body, waiting=options.max_waiting, seconds=options.seconds)
    trust = application(rollouts, keys=keys, limits=limits, loopback=loopback)
    config = uvicorn.Config(
        trust,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        http=Connection,
        ws="none",
    )
    for name, rollout in rollouts.items():
        print(f"{name}: {rollout.current.fingerprint}{'' if rollout.current.verified else ', not verified'}", flush=True)
    Server(config, trust).run()
    for rollout in rollouts.values():
        rollout.close(0)


if __name__ == "__main__":
    main()
