"""Follows an alias: a new version is opened next to the old one, tested, and takes over. The old one finishes its requests.

alias moved ──► verify ──► open ──► smoke test ──► current ──► the old engine finishes its requests and is closed
                   └──────────┴──────────┴──► refused: the old version stays, the reason is logged, and it is tried again later
"""

import logging
import threading
import time
from dataclasses import dataclass

from serve import models
from serve.models import EngineOptions, ModelRefused, ServedModel

RETRY_SECONDS = 60.0  # until a refused version is tried again
_log = logging.getLogger("serve.rollout")


@dataclass(frozen=True)
class RefusedVersion:
    """A version that was not taken, why, and when (``time.monotonic``)."""

    version: str
    reason: str
    at: float


class Rollout:
    """A model under the name that clients use. Only an alias is followed; a version's number or a directory stays as it is.

    ``current`` is the model that answers now. ``trouble`` says why the registry could not be read last, or what it says against the
    current version; ``None`` if nothing.
    """

    def __init__(self, source: str, options: EngineOptions, *, poll_seconds: float):
        """Open the model, then ask the registry every ``poll_seconds``. ``ValueError`` or ``ModelRefused`` if it cannot be opened."""
        self.source = source
        self.current: ServedModel = models.open_model(models.resolve(source), options)
        self.refused: RefusedVersion | None = None
        self.trouble: str | None = None
        self._options, self._poll_seconds = options, poll_seconds
        self._closing: list[threading.Thread] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_closed, name="rollout", daemon=True)
        if models.alias_of(source):
            self._thread.start()

    def state(self) -> dict[str, object]:
        """The model's part of ``/readyz``."""
        refused = {"version": self.refused.version, "reason": self.refused.reason} if self.refused else None
        return {
            "version": self.current.location.version or None,
            "fingerprint": self.current.fingerprint,
            "verified": self.current.verified,
            "refused": refused,
            "trouble": self.trouble,
        }

    def poll(self) -> None:
        """Ask the registry once, and switch to a new version. An error of the registry is logged and kept in ``trouble``."""
        try:
            version = models.current_version(self.source)
            unchanged = version == self.current.location.version
            objection = models.current_objection(self.current.location) if unchanged else ""
        except Exception as error:  # a tracking store, its driver or its network may fail in any way
            # The error's message may name paths or hosts of this machine, so clients get its type only.
            if self.trouble is None:
                _log.warning("%s cannot be resolved: %s", self.source, error)
            self.trouble = f"the registry does not say which version it is ({type(error).__name__})"
            return
        self.trouble = objection or None
        if unchanged:
            self.refused = None
        elif not (self.refused and self.refused.version == version and time.monotonic() < self.refused.at + RETRY_SECONDS):
            self._switch_to(version)

    def close(self, timeout: float | None = None) -> None:
        """Stop polling, and close all models, each with up to ``timeout`` seconds for its requests."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        models.close(self.current, timeout)
        for thread in self._closing:
            thread.join(timeout)

    def _poll_until_closed(self) -> None:
        while not self._closed.wait(self._poll_seconds):
            self.poll()

    def _switch_to(self, version: str) -> None:
        location = None
        try:
            location = models.resolve(f"{models.REGISTRY}{self.current.location.name}/{version}", alias=models.alias_of(self.source))
            new = models.open_model(location, self._options)
        except Exception as error:
            reason = str(error) if isinstance(error, ModelRefused) else f"version {version} failed ({type(error).__name__})"
            self.refused = RefusedVersion(version, reason, time.monotonic())
            _log.error("version %s stays: %s", self.current.location.version, reason)
            if location:
                models.delete_download(location)
            return
        old, self.current, self.refused = self.current, new, None
        _log.info("version %s answers, after version %s", new.location.version, old.location.version)
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        self._closing.append(threading.Thread(target=models.close, args=(old,), name="closing", daemon=True))
        self._closing[-1].start()
