"""The models that are served: found in the registry or a directory, compared with their passport, opened, each with its engine.

Nothing that does not verify is opened, unless ``unverified`` says so.
"""

import gc
import math
import os
import queue
import re
from dataclasses import dataclass
from pathlib import Path

from model.completion import Llama
from model.generate import Token
from model.sampling import GREEDY
from model.tokenizer import Tokenizer
from serve.engine import Ended, Engine, Request, apart
from tasks import passport
from tasks.digests import sha256
from tasks.lineage import PUBLIC_KEY

REGISTRY = "models:/"
CANARIES = ("What is arachnodactyly?", "Name three signs of pneumonia.", "The patient was diagnosed with")
CANARY_TOKENS, CANARY_SECONDS = 8, 120.0


class RefusedError(Exception):
    """Why a model is not served, without paths of this machine."""


@dataclass(frozen=True)
class Place:
    """Where a model lies. ``version`` is the registry's number, and empty of a directory."""

    name: str
    version: str
    directory: Path


@dataclass(frozen=True)
class Opening:
    """How models are opened."""

    slots: int
    max_len: int | None
    waiting: int
    unverified: bool


@dataclass(frozen=True)
class Served:
    """A model that answers. ``digest``: its passport's, or none."""

    place: Place
    verified: bool
    digest: str | None
    engine: Engine
    tokenizer: Tokenizer

    @property
    def fingerprint(self) -> str:
        """The version's number and the beginning of its passport's digest, of which one may be missing."""
        return "-".join(part for part in (self.place.version, (self.digest or "")[:12]) if part) or "unverified"


def id_of(which: str, *, beside: bool) -> str:
    """What a model is called to clients. The first of a registered model has its plain name; one beside it says which it is."""
    if not which.startswith(REGISTRY):
        return Path(which).resolve().name
    path = which.removeprefix(REGISTRY)
    return path if beside else re.split("[@/]", path)[0]


def version_now(which: str) -> str:
    """The number of the version that the registry means by a ``models:/``; ``ValueError`` where there is none."""
    from tasks import lineage, tracking

    return str(lineage.find(tracking.connect(), which).version)


def resolve(which: str) -> Place:
    """``ValueError`` where there is no such version or directory. From a server it copies the model."""
    if not which.startswith(REGISTRY):
        directory = Path(which).resolve()
        if not directory.is_dir():
            raise ValueError(f"{which} is no directory; a model is models:/NAME@ALIAS, models:/NAME/NUMBER or a checkpoint directory")
        return Place(directory.name, "", directory)
    from tasks import lineage, tracking, versions

    client = tracking.connect()
    version = lineage.find(client, which)
    return Place(version.name, str(version.version), versions.artifact(client, version.run_id, "checkpoint"))


def open_model(place: Place, how: Opening) -> Served:
    """``RefusedError`` says in a line why it is not served."""
    differing = differences(place)
    document = place.directory / passport.FILE
    if differing and not how.unverified:
        said = "; ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise RefusedError(f"{_called(place)} does not verify: {said}")
    try:
        tokenizer, engine = apart(_engine, place, how)
    except Exception as error:  # whatever the bytes are, the server that is there goes on
        words = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise RefusedError(f"{_called(place)} cannot be opened: {_without(place.directory, words)}") from None
    served = Served(place, not differing, sha256(document) if document.is_file() else None, engine, tokenizer)
    try:
        examine(served)
    except RefusedError:
        engine.close(0)
        raise
    return served


def _engine(place: Place, how: Opening) -> tuple[Tokenizer, Engine]:
    llama = Llama.build(place.directory, max_seq_len=how.max_len)
    return llama.tokenizer, Engine(llama.model, slots=how.slots, max_len=llama.model.config.max_seq_len, most_waiting=how.waiting)


def differences(place: Place) -> list[str]:
    """What of a model's files is not as its passport says, in words without paths of this machine."""
    from tasks import lineage

    which = f"{REGISTRY}{place.name}/{place.version}" if place.version else ""
    key = Path(os.environ[PUBLIC_KEY]) if os.environ.get(PUBLIC_KEY) else None
    try:
        findings = [f for f in lineage.verify(which, deployed=place.directory, public_key=key) if f.state == "differs"]
    except ValueError as error:
        return [_without(place.directory, str(error))]
    return [f"{f.name or f.tree}" + (f" ({_without(place.directory, f.note)})" if f.note else "") for f in findings]


def examine(served: Served) -> None:
    """Whether a model answers the canary prompts, with finite logits; ``RefusedError`` where not."""
    told: queue.Queue[Token | Ended] = queue.Queue()
    stop_ids = frozenset(served.tokenizer.stop_ids)
    for question in CANARIES:
        prompt = served.tokenizer.prompt(question)[-(served.engine.max_len - 1) :]
        served.engine.submit(Request(prompt, GREEDY, CANARY_TOKENS, told.put, stop_ids=stop_ids, log_probabilities=0))
        try:
            while isinstance(what := told.get(timeout=CANARY_SECONDS), Token):
                if what.log_probability is None or not math.isfinite(what.log_probability.of_token):
                    raise RefusedError(f"{_called(served.place)} gives logits that are not finite")
        except queue.Empty:
            raise RefusedError(f"{_called(served.place)} does not answer within {CANARY_SECONDS:.0f} s") from None
        if what not in ("stop", "length"):
            raise RefusedError(f"{_called(served.place)} fails on a canary prompt")


def close(served: Served, timeout: float | None = None) -> None:
    """Let a model's requests end, and give its memory back, and the disk of its copy."""
    served.engine.close(timeout)
    gc.collect()
    leave(served.place)


def leave(place: Place) -> None:
    """A model that is not served, or no longer, needs no copy."""
    if place.version:
        from tasks import versions

        versions.without_copy(place.directory)


def _called(place: Place) -> str:
    return f"{place.name} version {place.version}" if place.version else place.name


def _without(directory: Path, words: str) -> str:
    return words.replace(f"{directory}/", "").replace(str(directory), directory.name)
