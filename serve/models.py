"""The models that are served: found in the registry or a directory, verified, opened, each with its engine.

Nothing that does not verify is opened, unless ``unverified`` says so.
"""

import gc
import math
import queue
import re
from dataclasses import dataclass, replace
from pathlib import Path

from model.generation.completion import Llama
from model.generation.generate import Token
from model.generation.sampling import GREEDY
from model.tokenizer.tokenizer import Tokenizer
from serve import verified
from serve.engine import Ended, Engine, Request, apart
from serve.verified import CARD, Checked, Place

REGISTRY = "models:/"
CANARIES = ("What is arachnodactyly?", "Name three signs of pneumonia.", "The patient was diagnosed with")
CANARY_TOKENS, CANARY_SECONDS = 8, 120.0


class RefusedError(Exception):
    """Why a model is not served, without paths of this machine."""


@dataclass(frozen=True)
class Opening:
    """How models are opened."""

    slots: int
    max_len: int | None
    waiting: int
    unverified: bool


@dataclass(frozen=True)
class Served:
    """A model that answers, with the passport that was verified and the model card that came with it, if any."""

    place: Place
    checked: Checked
    card: str | None
    engine: Engine
    tokenizer: Tokenizer

    @property
    def verified(self) -> bool:
        return not self.checked.problems

    @property
    def digest(self) -> str | None:
        """SHA-256 of the passport."""
        return self.checked.digest

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
    from tasks.registry import tracking, versions

    return str(versions.find(tracking.connect(), which).version)


def objection_now(place: Place) -> str:
    """What the registry says against a version that is served already; empty where nothing."""
    from tasks.registry import promotion, tracking

    client = tracking.connect()
    return promotion.objection(client, client.get_model_version(place.name, place.version), alias="", verdict="")


def resolve(which: str, *, alias: str = "") -> Place:
    """``ValueError`` where there is no such version or directory. From a server it copies the model. ``alias``: through which a version
    was found that is now asked for by its number."""
    if not which.startswith(REGISTRY):
        directory = Path(which).resolve()
        if not directory.is_dir():
            raise ValueError(f"{which} is no directory; a model is models:/NAME@ALIAS, models:/NAME/NUMBER or a checkpoint directory")
        return Place(directory.name, "", directory)
    from tasks.registry import tracking, versions

    client = tracking.connect()
    version = versions.find(client, which)
    found = Place(version.name, str(version.version), versions.artifact(client, str(version.run_id), "checkpoint"))
    return replace(found, alias=alias or alias_of(which))


def alias_of(which: str) -> str:
    """The alias that a ``models:/`` names, if any."""
    return which.rpartition("@")[2] if which.startswith(REGISTRY) and "@" in which else ""


def open_model(place: Place, how: Opening) -> Served:
    """``RefusedError`` says in a line why it is not served."""
    checked = verified.check(place)
    if (problems := checked.problems) and not how.unverified:
        said = "; ".join(problems[:5]) + (f" and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise RefusedError(f"{_called(place)} does not verify: {said}")
    try:
        opened = _unverified(place, how) if problems else _verified(place, checked, how)
    except Exception as error:  # whatever the bytes are, the server that is there goes on
        words = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise RefusedError(f"{_called(place)} cannot be opened: {verified.without(place.directory, words)}") from None
    card, tokenizer, engine = opened
    served = Served(place, checked, card, engine, tokenizer)
    try:
        examine(served)
    except RefusedError:
        engine.close(0)
        raise
    return served


def _verified(place: Place, checked: Checked, how: Opening) -> tuple[str | None, Tokenizer, Engine]:
    with verified.private_copy(place, checked) as directory:
        return _card(directory), *apart(_engine, directory, checked.weights, how)


def _unverified(place: Place, how: Opening) -> tuple[str | None, Tokenizer, Engine]:
    return _card(place.directory), *apart(_engine, place.directory, None, how)


def _card(directory: Path) -> str | None:
    path = directory / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _engine(directory: Path, weights: dict[str, str] | None, how: Opening) -> tuple[Tokenizer, Engine]:
    llama = Llama.build(directory, max_seq_len=how.max_len, weights_sha256=weights)
    return llama.tokenizer, Engine(llama.model, slots=how.slots, max_len=llama.model.config.max_seq_len, most_waiting=how.waiting)


def examine(served: Served) -> None:
    """Whether a model answers the canary prompts, with finite logits; ``RefusedError`` where not."""
    told: queue.Queue[Token | Ended] = queue.Queue()
    stop_ids = frozenset(served.tokenizer.stop_ids)
    for question in CANARIES:
        prompt = served.tokenizer.prompt(question)[-(served.engine.max_len - 1) :]
        served.engine.submit(Request(prompt, GREEDY, CANARY_TOKENS, told.put, stop_ids=stop_ids, log_probabilities=0))
        try:
            while isinstance(what := told.get(timeout=CANARY_SECONDS), Token):
                if what.log_probability is None or not math.isfinite(what.log_probability.logprob):
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
        from tasks.registry import versions

        versions.without_copy(place.directory)


def _called(place: Place) -> str:
    return f"{place.name} version {place.version}" if place.version else place.name
