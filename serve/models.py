"""The models that are served: located in the registry or a directory, verified, opened, each with its engine.

A model that does not verify is refused, except with the option ``unverified``. A ``source`` is what a user names a model by:
``models:/NAME@ALIAS``, ``models:/NAME/NUMBER`` or a checkpoint directory.
"""

import gc
import math
import queue
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from model.checkpoint.json_file import read_json
from model.generation.adapters import Adapter
from model.generation.completion import Llama
from model.generation.generate import Token
from model.generation.sampling import GREEDY, Sampling
from model.tokenizer.tokenizer import Tokenizer
from serve import verified
from serve.engine import Engine, FinishReason, Request, run_in_fresh_thread
from serve.verified import CARD, TASKS, ModelLocation, Verification
from tasks.runtime.digests import sha256

Tasks = Mapping[str, Any]  # extraction tasks by their names, as preprocess writes them
Loaded = tuple[str | None, Tasks, Mapping[str, float], Tokenizer, Engine]  # card, tasks, defaults of sampling
REGISTRY = "models:/"
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")  # those of transformers that Sampling has
PROBE_PROMPTS = ("What is arachnodactyly?", "Name three signs of pneumonia.", "The patient was diagnosed with")
PROBE_TOKENS, PROBE_SECONDS = 8, 120.0
MAX_PROBLEMS = 5  # of a model that does not verify, in one message


class ModelRefused(Exception):
    """Why a model is not served, without paths of this machine."""


@dataclass(frozen=True)
class EngineOptions:
    """How models are opened: see ``Engine``; ``max_len`` ``None`` is the model's context."""

    slots: int
    max_len: int | None
    max_waiting: int
    unverified: bool  # also open models that do not verify
    quantize: str | None = None  # "int8" or "int4": with 8-bit or 4-bit weights, whatever is stored
    tasks: Tasks = field(default_factory=dict)  # of a model that brings none


@dataclass(frozen=True)
class ServedModel:
    """A model that answers, with its verification and its model card, if it has one."""

    location: ModelLocation
    verification: Verification
    card: str | None
    tasks: Tasks
    engine: Engine
    tokenizer: Tokenizer
    defaults: Mapping[str, float]  # of sampling settings that a request does not give, from generation_config.json
    quantized: str | None  # as of EngineOptions
    adapter: Adapter | None = None  # with which the engine is to answer
    opened: int = field(default_factory=lambda: int(time.time()))  # Unix time

    @property
    def verified(self) -> bool:
        """Whether nothing spoke against the model."""
        return not self.verification.problems

    @cached_property
    def base_files(self) -> Mapping[str, str]:
        """SHA-256 of the files of a base model that decide what an adapter of it means, by name."""
        if self.verified:
            files = verified.files_of(self.verification)
        else:
            files = {path.name: sha256(path) for path in self.location.directory.iterdir() if path.is_file()}
        return verified.deciding(files)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the passport."""
        return self.verification.digest

    @property
    def fingerprint(self) -> str:
        """The version's number and the first 12 digits of its passport's SHA-256, or ``unverified`` if it has neither.

        With quantized weights, which answer in another way, it ends with their name.
        """
        version = "-".join(part for part in (self.location.version, (self.digest or "")[:12]) if part) or "unverified"
        return f"{version}-{self.quantized}" if self.quantized else version


def model_id(source: str, *, compared: bool) -> str:
    """The name that clients use. The first registered model has its plain name, one that is ``compared`` with it has alias or version."""
    if not source.startswith(REGISTRY):
        return Path(source).resolve().name
    path = source.removeprefix(REGISTRY)
    return path if compared else re.split("[@/]", path)[0]


def current_version(source: str) -> str:
    """The version number that a ``models:/`` source means now; ``ValueError`` if there is none."""
    from tasks.registry import tracking, versions

    return str(versions.find(tracking.connect(), source).version)


def version_with_alias(source: str) -> str | None:
    """The version number at the alias that a ``models:/`` source names; ``None`` where the alias is not set."""
    from tasks.registry import tracking, versions

    return versions.aliases(tracking.connect(), registered_name(source)).get(alias_of(source))


def current_objection(location: ModelLocation) -> str:
    """What the registry says against a version that is served already; empty if nothing."""
    from tasks.registry import promotion, tracking

    client = tracking.connect()
    return promotion.objection(client, client.get_model_version(location.name, location.version), alias="", verdict="")


def resolve(source: str, *, alias: str = "") -> ModelLocation:
    """Locate a model, and download it if the registry is a server. ``ValueError`` if there is no such version or directory.

    ``alias``: the alias that led to this version, when the source names its number.
    """
    if not source.startswith(REGISTRY):
        directory = Path(source).resolve()
        if not directory.is_dir():
            raise ValueError(f"{source} is no directory; a model is models:/NAME@ALIAS, models:/NAME/NUMBER or a checkpoint directory")
        return ModelLocation(directory.name, "", directory)
    from tasks.registry import tracking, versions

    client = tracking.connect()
    version = versions.find(client, source)
    location = ModelLocation(version.name, str(version.version), versions.artifact(client, str(version.run_id), "checkpoint"))
    return replace(location, alias=alias or alias_of(source))


def with_number(source: str, version: str) -> str:
    """A ``models:/`` source of the same model by a version's number."""
    return f"{REGISTRY}{registered_name(source)}/{version}"


def alias_of(source: str) -> str:
    """The alias that a ``models:/`` source names; empty if none."""
    return source.rpartition("@")[2] if source.startswith(REGISTRY) and "@" in source else ""


def registered_name(source: str) -> str:
    """The registered model that a ``models:/`` source names."""
    return source.removeprefix(REGISTRY).replace("@", "/").rpartition("/")[0]


def open_model(location: ModelLocation, options: EngineOptions, vouched_by: Iterable[ModelLocation] = ()) -> ServedModel:
    """Verify a model, load it, and run the smoke test. ``ModelRefused`` says in one line why it is not served.

    ``vouched_by``: adapters, the passports of which list the files of their base model. One that verifies is a passport for that model.
    """
    verification = verified.check(location)
    if verification.problems:
        others = (verified.check_as_base(location, adapter) for adapter in vouched_by)
        verification = next((other for other in others if other), verification)
    refuse_unverified(location, verification, options)
    with refusing(location):
        card, tasks, defaults, tokenizer, engine = (
            _read(location.directory, None, options) if verification.problems else _load_verified(location, verification, options)
        )
    served = ServedModel(location, verification, card, tasks or options.tasks, engine, tokenizer, defaults, options.quantize)
    try:
        smoke_test(served)
    except ModelRefused:
        engine.close(0)
        raise
    return served


def refuse_unverified(location: ModelLocation, verification: Verification, options: EngineOptions) -> None:
    """``ModelRefused`` if something speaks against a model, and the options do not allow that."""
    if (problems := verification.problems) and not options.unverified:
        listed = "; ".join(problems[:MAX_PROBLEMS])
        more = f" and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise ModelRefused(f"{display_name(location)} does not verify: {listed}{more}")


@contextmanager
def refusing(location: ModelLocation) -> Iterator[None]:
    """Make every error a ``ModelRefused``: no content of a file may end a running server."""
    try:
        yield
    except Exception as error:
        message = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ModelRefused(f"{display_name(location)} cannot be opened: {verified.without_path(location.directory, message)}") from None


def _load_verified(location: ModelLocation, verification: Verification, options: EngineOptions) -> Loaded:
    with verified.private_copy(location, verification) as directory:
        return _read(directory, verification.weights, options)


def _read(directory: Path, weights: dict[str, str] | None, options: EngineOptions) -> Loaded:
    tasks = directory / TASKS
    return (
        _read_card(directory),
        read_tasks(tasks) if tasks.is_file() else {},
        _read_defaults(directory),
        *run_in_fresh_thread(_load, directory, weights, options),
    )


def _read_defaults(directory: Path) -> Mapping[str, float]:
    """The sampling settings of ``generation_config.json``; ``ValueError`` for one that is out of range."""
    path = directory / "generation_config.json"
    config = read_json(path) if path.is_file() else {}
    defaults: dict[str, Any] = {name: value for name in SAMPLING_DEFAULTS if isinstance(value := config.get(name), int | float)}
    try:
        Sampling(**defaults)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return defaults


def read_tasks(path: Path) -> Tasks:
    """The extraction tasks in a ``tasks.json``; ``ValueError`` for what is none."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; preprocess writes one into artifacts/documents")
    tasks = read_json(path)
    if not all(isinstance(task, dict) and {"instructions", "schema"} <= task.keys() for task in tasks.values()):
        raise ValueError(f"{path.name} is no list of extraction tasks as preprocess writes it")
    return tasks


def _read_card(directory: Path) -> str | None:
    path = directory / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _load(directory: Path, weights: dict[str, str] | None, options: EngineOptions) -> tuple[Tokenizer, Engine]:
    llama = Llama.build(directory, max_seq_len=options.max_len, quantize=options.quantize, weights_sha256=weights)
    max_len = llama.model.config.max_seq_len
    return llama.tokenizer, Engine(llama.model, slots=options.slots, max_len=max_len, max_waiting=options.max_waiting)


def smoke_test(served: ServedModel) -> None:
    """Let the model answer the probe prompts. ``ModelRefused`` if one fails, takes too long, or gives logits that are not finite."""
    events: queue.Queue[Token | FinishReason] = queue.Queue()
    stop_ids = frozenset(served.tokenizer.stop_ids)
    name = display_name(served.location)
    for question in PROBE_PROMPTS:
        prompt = served.tokenizer.prompt(question)[-(served.engine.max_len - 1) :]
        served.engine.submit(
            Request(prompt, GREEDY, PROBE_TOKENS, events.put, stop_ids=stop_ids, log_probabilities=0, adapter=served.adapter)
        )
        try:
            while isinstance(event := events.get(timeout=PROBE_SECONDS), Token):
                if event.log_probability is None or not math.isfinite(event.log_probability.logprob):
                    raise ModelRefused(f"{name} gives logits that are not finite")
        except queue.Empty:
            raise ModelRefused(f"{name} does not answer within {PROBE_SECONDS:.0f} s") from None
        if event not in ("stop", "length"):
            raise ModelRefused(f"{name} fails on a probe prompt")


def close(served: ServedModel, timeout: float | None = None) -> None:
    """Let the model's requests end for up to ``timeout`` seconds, then free its memory and delete its downloaded copy."""
    served.engine.close(timeout)
    gc.collect()
    delete_download(served.location)


def delete_download(location: ModelLocation) -> None:
    """Delete the copy that ``resolve`` downloaded, if it did."""
    if location.version:
        from tasks.registry import versions

        versions.without_copy(location.directory)


def display_name(location: ModelLocation) -> str:
    """What messages call a model."""
    return f"{location.name} version {location.version}" if location.version else location.name
