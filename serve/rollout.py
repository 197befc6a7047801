"""Follows an alias: a new version is opened beside the old one, examined, and takes over; the old one ends its requests first.

alias moved ──► verify ──► open ──► canaries ──► current ──► the old engine ends what it has, and is closed
                   └──────────┴─────────┴──► refused: the old one stays, the reason is told, and it is tried again later
"""

import logging
import threading
import time
from dataclasses import dataclass

from serve import models
from serve.models import Opening, RefusedError, Served

AGAIN = 60.0  # seconds until a version that was refused is tried again
_log = logging.getLogger("serve.rollout")


@dataclass(frozen=True)
class Refused:
    version: str
    reason: str
    at: float  # of time.monotonic


class Rollout:
    """A model under the name that clients know it by. Only an alias is followed; a number or a directory stays what it is."""

    def __init__(self, which: str, how: Opening, *, seconds: float):
        """``ValueError`` or ``RefusedError`` where there is nothing to begin with."""
        self.which = which
        self.current: Served = models.open_model(models.resolve(which), how)
        self.refused: Refused | None = None
        self.trouble: str | None = None  # why the registry could not be asked the last time
        self._how, self._seconds = how, seconds
        self._closing: list[threading.Thread] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="rollout", daemon=True)
        if models.alias_of(which):
            self._thread.start()

    def state(self) -> dict[str, object]:
        refused = {"version": self.refused.version, "reason": self.refused.reason} if self.refused else None
        return {
            "version": self.current.place.version or None,
            "fingerprint": self.current.fingerprint,
            "verified": self.current.verified,
            "refused": refused,
            "trouble": self.trouble,
        }

    def look(self) -> None:
        """Ask the registry once, and do what follows."""
        try:
            version = models.version_now(self.which)
            stays = version == self.current.place.version
            objection = models.objection_now(self.current.place) if stays else ""
        except Exception as error:  # a store, its driver or its network may fail in any way
            # Its words may name this machine's paths or hosts.
            if self.trouble is None:
                _log.warning("%s cannot be resolved: %s", self.which, error)
            self.trouble = f"the registry does not say which version it is ({type(error).__name__})"
            return
        self.trouble = objection or None
        if stays:
            self.refused = None
        elif not (self.refused and self.refused.version == version and time.monotonic() < self.refused.at + AGAIN):
            self._take(version)

    def close(self, timeout: float | None = None) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        models.close(self.current, timeout)
        for thread in self._closing:
            thread.join(timeout)

    def _follow(self) -> None:
        while not self._ended.wait(self._seconds):
            self.look()

    def _take(self, version: str) -> None:
        place = None
        try:
            place = models.resolve(f"{models.REGISTRY}{self.current.place.name}/{version}", alias=models.alias_of(self.which))
            new = models.open_model(place, self._how)
        except Exception as error:
            reason = str(error) if isinstance(error, RefusedError) else f"version {version} failed ({type(error).__name__})"
            self.refused = Refused(version, reason, time.monotonic())
            _log.error("version %s stays: %s", self.current.place.version, reason)
            if place:
                models.leave(place)
            return
        old, self.current, self.refused = self.current, new, None
        _log.info("version %s answers, after version %s", new.place.version, old.place.version)
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        self._closing.append(threading.Thread(target=models.close, args=(old,), name="closing", daemon=True))
        self._closing[-1].start()
