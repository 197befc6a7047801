"""Follows an alias: a new version is opened next to the old one, tested, and takes over. The old one finishes its requests.

alias moved ──► verify ──► open ──► smoke test ──► current ──► the old engine finishes its requests and is closed
                   └──────────┴──────────┴──► refused: the old version stays, the reason is logged, and it is tried again later

An adapter is followed in the same way, and answers in the engine of its base model. When that changes its version, its adapters are opened
for the new one before it takes over.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from serve import models
from serve.adapters import open_adapter
from serve.models import EngineOptions, ModelRefused, ServedModel
from serve.verified import ModelLocation
from tasks.registry.serving_log import ServingLog

RETRY_SECONDS = 60.0  # until a refused version is tried again
_log = logging.getLogger("serve.rollout")


class ModelWithdrawn(Exception):
    """No version is served under this name now."""


@dataclass(frozen=True)
class RefusedVersion:
    """A version that was not taken, why, and when (``time.monotonic``)."""

    version: str
    reason: str
    at: float


class Rollout:
    """What is served under a name that clients use. Only an alias is followed; a version's number or a directory stays as it is.

    ``served`` is what answers now, ``None`` where nothing does. ``trouble`` says why the registry could not be read last, or what it says
    against the current version; ``None`` if nothing.
    """

    def __init__(self, source: str, options: EngineOptions, log: ServingLog | None):
        """``log``: where to record what is served from when until when, if anywhere."""
        self.source = source
        self.served: ServedModel | None = None
        self.refused: RefusedVersion | None = None
        self.trouble: str | None = None
        self.adapters: dict[str, AdapterRollout] = {}  # by the names that clients use
        self._options = options
        self._serving_log = log

    @property
    def current(self) -> ServedModel:
        """What answers now; ``ModelWithdrawn`` where nothing does."""
        if (served := self.served) is None:
            raise ModelWithdrawn
        return served

    def state(self) -> dict[str, object]:
        """Its part of ``/readyz``."""
        served = self.served
        return {
            "version": (served.location.version or None) if served else None,
            "fingerprint": served.fingerprint if served else None,
            "verified": served.verified if served else None,
            "refused": {"version": self.refused.version, "reason": self.refused.reason} if self.refused else None,
            "trouble": self.trouble,
        }

    def poll(self) -> None:
        """Ask the registry once, and switch to a new version. An error of the registry is logged and kept in ``trouble``."""
        present = self.served.location if self.served else None
        try:
            version = self._newest()
            unchanged = version == (present.version if present else None)
            objection = models.current_objection(present) if unchanged and present else ""
        except Exception as error:  # a tracking store, its driver or its network may fail in any way
            # The error's message may name paths or hosts of this machine, so clients get its type only.
            if self.trouble is None:
                _log.warning("%s cannot be resolved: %s", self.source, error)
            self.trouble = f"the registry does not say which version it is ({type(error).__name__})"
            return
        if objection and objection != self.trouble:
            self.record("object", self.served, objection)
        self.trouble = objection or None
        if unchanged:
            self.refused = None
        elif version is None:
            self.record("stop", self.served, "withdrawn: its alias is set no more")
            self.served = self.refused = None
            _log.info("%s is withdrawn", self.source)
        elif not (self.refused and self.refused.version == version and time.monotonic() < self.refused.at + RETRY_SECONDS):
            self._switch_to(version)

    def close(self, timeout: float | None = None) -> None:
        """Let requests end for up to ``timeout`` seconds, and free what they needed."""

    def _newest(self) -> str | None:
        """The version that the alias points at; ``None`` where it is to be withdrawn."""
        raise NotImplementedError

    def _open(self, location: ModelLocation) -> ServedModel:
        raise NotImplementedError

    def _retire(self, old: ServedModel) -> None:
        """Called with the version that another one replaced."""

    def _switch_to(self, version: str) -> None:
        location, before = None, self.served.location.version if self.served else "none"
        try:
            location = models.resolve(models.with_number(self.source, version), alias=models.alias_of(self.source))
            new = self._open(location)
        except Exception as error:
            self._refuse(version, error)
            _log.error("version %s stays", before)
            if location:
                models.delete_download(location)
            return
        old, self.served, self.refused = self.served, new, None
        _log.info("version %s answers, after version %s", new.location.version, before)
        self.record("stop", old, f"version {version} takes over")
        self.record("serve", new, f"the alias moved, after version {before}")
        if old:
            self._retire(old)

    def _refuse(self, version: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, ModelRefused) else f"version {version} failed ({type(error).__name__})"
        if not (self.refused and (self.refused.version, self.refused.reason) == (version, reason)):  # it is tried again and again
            self._write("refuse", models.model_id(self.source, compared=False), version, reason, "")
        self.refused = RefusedVersion(version, reason, time.monotonic())
        _log.error("%s: %s", self.source, reason)

    def record(self, verb: str, served: ServedModel | None, why: str) -> None:
        """Add an entry to the serving log, if there is one, on a version that is or was served."""
        if served:
            where = served.location
            verified = "" if served.verified else "; not verified"
            self._write(verb, where.name, where.version, f"{why}{verified}", served.digest or "")

    def _write(self, verb: str, name: str, version: str, why: str, evidence: str) -> None:
        if not self._serving_log:
            return
        try:
            self._serving_log.append(verb, name, version, why=why, evidence=evidence)
        except (OSError, ValueError) as error:  # what answers goes on answering
            _log.error("%s cannot be recorded: %s", verb, error)


class ModelRollout(Rollout):
    """A model with its engine, and the adapters that answer in it."""

    def __init__(
        self,
        source: str,
        options: EngineOptions,
        *,
        poll_seconds: float,
        adapters: Mapping[str, str] = MappingProxyType({}),
        log: ServingLog | None = None,
    ):
        """Open the model and its ``adapters``, sources by name, then ask the registry every ``poll_seconds``.

        ``ValueError`` or ``ModelRefused`` if one of them cannot be opened. An adapter whose alias is not set is none of them.
        """
        super().__init__(source, options, log)
        self._poll_seconds = poll_seconds
        self._closing: list[threading.Thread] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_closed, name="rollout", daemon=True)
        located = {name: _locate(adapter) for name, adapter in adapters.items()}
        self.served = models.open_model(models.resolve(source), options, vouched_by=[location for location in located.values() if location])
        try:
            for name, location in located.items():
                self.adapters[name] = AdapterRollout(adapters[name], location, self.served, options, log)
        except BaseException:
            models.close(self.served, 0)
            raise
        for rollout in (self, *self.adapters.values()):
            rollout.record("serve", rollout.served, "the server started")
        if any(models.alias_of(followed) for followed in (source, *adapters.values())):
            self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """Stop polling, and close all models, each with up to ``timeout`` seconds for its requests."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        for rollout in (self, *self.adapters.values()):
            rollout.record("stop", rollout.served, "the server ended")
        models.close(self.current, timeout)
        for thread in self._closing:
            thread.join(timeout)

    def _poll_until_closed(self) -> None:
        followed = [rollout for rollout in (self, *self.adapters.values()) if models.alias_of(rollout.source)]
        while not self._closed.wait(self._poll_seconds):
            for rollout in followed:
                rollout.poll()

    def _newest(self) -> str:
        return models.current_version(self.source)

    def _open(self, location: ModelLocation) -> ServedModel:
        new = models.open_model(location, self._options)
        for adapter in self.adapters.values():
            adapter.attach(new)
        return new

    def _retire(self, old: ServedModel) -> None:
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        self._closing.append(threading.Thread(target=models.close, args=(old,), name="closing", daemon=True))
        self._closing[-1].start()


class AdapterRollout(Rollout):
    """An adapter of a model. It answers as long as its alias is set; a request keeps the version with which it began."""

    def __init__(self, source: str, location: ModelLocation | None, base: ServedModel, options: EngineOptions, log: ServingLog | None):
        """Open the adapter at ``location``, if there is one. Errors are those of ``open_adapter``."""
        super().__init__(source, options, log)
        self._base_model = base
        self.served = self._open(location) if location else None

    def attach(self, base: ServedModel) -> None:
        """Open the adapter for another version of its base model. Where it does not fit it is withdrawn, and ``refused`` says why."""
        self._base_model = base
        before, location = self.served, None
        try:
            location = _locate(self.source)
            self.served, self.refused = self._open(location) if location else None, None
        except Exception as error:
            self.served = None
            self._refuse(location.version if location else "", error)
        if not self.served:
            self.record("stop", before, "it is not of the base model's new version")

    def _newest(self) -> str | None:
        return models.version_with_alias(self.source)

    def _open(self, location: ModelLocation) -> ServedModel:
        try:
            return open_adapter(location, self._base_model, self._options)
        finally:
            models.delete_download(location)  # it is in memory


def _locate(adapter: str) -> ModelLocation | None:
    """Where an adapter is; ``None`` where its alias is not set."""
    return None if models.alias_of(adapter) and models.version_with_alias(adapter) is None else models.resolve(adapter)
