"""Around every request: who may ask, how much a body may hold, what leaves with every answer, and what stands in the log.

It knows nothing of models, and of text only lengths and a hash with a salt that nobody keeps.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import ApiError, failed, unavailable

KEYS, KEYS_FILE = "SERVE_API_KEYS", "SERVE_API_KEYS_FILE"  # environment: keys by commas; a file with one on each line
OPEN = frozenset({"/healthz", "/readyz"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
DISCARDED = 64 << 20  # of a body that is too large so much is read all the same, so that its sender hears why
_log = logging.getLogger("serve")


@dataclass(frozen=True)
class Limits:
    """What one request may take, and how many may wait."""

    body: int = 1 << 20  # bytes
    body_seconds: float = 10.0
    prompt_tokens: int = 1 << 17  # of all prompts of a request
    seconds: float = 600.0  # then an answer ends where it is
    waiting: int = 64


def keys_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """``ValueError`` where a setting names no key: that it was meant to protect is clear, and that it would not."""
    found: list[str] = []
    if KEYS in environment:
        found += _listed(environment[KEYS].split(","), KEYS)
    if path := environment.get(KEYS_FILE):
        try:
            found += _listed(Path(path).read_text(encoding="utf-8").splitlines(), KEYS_FILE)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{KEYS_FILE}: {path} cannot be read ({type(error).__name__})") from None
    return tuple(found)


def _listed(words: list[str], setting: str) -> list[str]:
    if not (found := [word.strip() for word in words if word.strip()]):
        raise ValueError(f"{setting} holds no key")
    return found


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class _Exchange:
    """One request: what is known of it for the log."""

    began: float = field(default_factory=time.monotonic)
    read: int = 0
    body_hash: str = "-"
    status: int = 0
    written: int = 0


class Trust:
    """ASGI middleware. ``routes``: all paths, for which alone the log and the metrics have names; ``public``: those that need no key."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: tuple[str, ...],
        limits: Limits,
        routes: Collection[str],
        public: Collection[str],
        loopback: bool,
        answered: Callable[[str, int], None],
    ):
        self.draining = False
        self.running = 0
        self._app, self._limits, self._routes, self._public, self._answered = app, limits, routes, public, answered
        self._keys = [self._digest(key.encode()) for key in keys]
        self._loopback = loopback
        self._salt = secrets.token_bytes(16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange()
        route = scope["path"] if scope["path"] in self._routes else "other"
        self.running += 1
        try:
            await self._exchange(exchange, scope, receive, send)
        except Exception as error:
            # Without the error's own words: they may be about what was asked. A client that left is no error.
            if not isinstance(error, OSError):
                _log.error("%s failed: %s\n%s", route, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            if not exchange.status:
                await self._refuse(failed(), exchange, scope, receive, send)
        finally:
            self.running -= 1
            self._answered(route, exchange.status)
            self._note(route, scope, exchange)

    async def _exchange(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
            body = await self._body(exchange, scope, receive)
        except ApiError as error:
            await self._refuse(error, exchange, scope, receive, send)
            return

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._app(scope, replay, self._sender(exchange, send))

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        # A page elsewhere whose name was made to point at this machine could otherwise ask as if it were ours. A proxy's names are
        # its own; where one stands in front, a key does.
        if self._loopback and not self._keys and not is_loopback(_host(headers.get("host", ""))):
            raise ApiError(421, "This server answers to loopback names only.", code="wrong_host")
        if path in self._public:
            return
        if self._keys and not self._knows(headers.get("authorization", "")):
            raise ApiError(401, "A valid API key is needed.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if self.draining and path != "/metrics":
            raise unavailable("The server is shutting down.")

    def _knows(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        given = self._digest(key.strip().encode("latin-1"))
        # All of them, so that the time says nothing of which one is near.
        return bool(sum([hmac.compare_digest(given, known) for known in self._keys])) and scheme.lower() == "bearer"

    @staticmethod
    def _digest(key: bytes) -> bytes:
        return hashlib.sha256(key).digest()

    async def _body(self, exchange: _Exchange, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; none of a method that has none. ``ApiError`` for one that is too large or too slow."""
        if scope["method"] in ("GET", "HEAD"):
            return None
        parts = []
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(499, "The client left.")
                    part = message.get("body", b"")
                    exchange.read += len(part)
                    more = message.get("more_body", False)
                    if exchange.read <= self._limits.body:
                        parts.append(part)
                    elif exchange.read > DISCARDED:
                        break
        except TimeoutError:
            raise ApiError(408, "The body did not come in time.", code="timeout", headers={"Connection": "close"}) from None
        if exchange.read > self._limits.body:
            raise ApiError(
                413, f"The body has more than {self._limits.body} bytes.", code="body_too_large", headers={"Connection": "close"}
            )
        body = b"".join(parts)
        exchange.body_hash = hashlib.blake2b(body, key=self._salt, digest_size=6).hexdigest()
        return body

    def _sender(self, exchange: _Exchange, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            exchange.written += len(message.get("body", b""))
            await send(message)

        return sent

    async def _refuse(self, error: ApiError, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        await error.response(scope, receive, self._sender(exchange, send))

    def _note(self, route: str, scope: Scope, exchange: _Exchange) -> None:
        address = str((scope.get("client") or ("-",))[0])
        client = hashlib.blake2b(address.encode(), key=self._salt, digest_size=6).hexdigest()
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        seconds = time.monotonic() - exchange.began
        line = "%s %s %d in %.3f s, client %s, body %s of %d bytes, answer of %d bytes"
        _log.info(line, method, route, exchange.status, seconds, client, exchange.body_hash, exchange.read, exchange.written)


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.rpartition(":")[0] or header
