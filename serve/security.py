"""Middleware around every request: API keys, limits of bodies, security headers, the log.

It knows nothing of models. Of texts it sees lengths, and a hash with a salt that is not kept.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.compatibility import IGNORED_HEADER
from serve.errors import ApiError, internal_error, unavailable

API_KEYS, API_KEYS_FILE = "SERVE_API_KEYS", "SERVE_API_KEYS_FILE"  # environment: keys separated by commas; a file with one per line
PUBLIC_ROUTES = frozenset({"/health", "/healthz", "/readyz"})
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
MAX_DISCARDED_BYTES = 64 << 20  # of a body that is too large; it is read so far, so that the client gets the error
_log = logging.getLogger("serve")


@dataclass(frozen=True)
class Limits:
    """What one request may take, and how many may wait."""

    max_body_bytes: int = 1 << 20
    body_seconds: float = 10.0  # to receive the body
    max_prompt_tokens: int = 1 << 17  # over all prompts of a request
    answer_seconds: float = 600.0  # then an answer ends with the tokens that it has
    max_waiting: int = 64


def read_api_keys(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The API keys of both settings; none if neither is set.

    ``ValueError`` for a setting without a key, and for a file that cannot be read: such a server would not be protected.
    """
    keys: list[str] = []
    if API_KEYS in environment:
        keys += _parse_keys(environment[API_KEYS].split(","), API_KEYS)
    if path := environment.get(API_KEYS_FILE):
        try:
            keys += _parse_keys(Path(path).read_text(encoding="utf-8").splitlines(), API_KEYS_FILE)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{API_KEYS_FILE}: {path} cannot be read ({type(error).__name__})") from None
    return tuple(keys)


def _parse_keys(words: list[str], setting: str) -> list[str]:
    if not (keys := [word.strip() for word in words if word.strip()]):
        raise ValueError(f"{setting} holds no key")
    return keys


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback. Names are not resolved."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class _Exchange:
    """What the log says about one request and its response."""

    began: float = field(default_factory=time.monotonic)
    body_bytes: int = 0
    body_hash: str = "-"
    status: int = 0
    response_bytes: int = 0


class SecurityMiddleware:
    """ASGI middleware.

    ``routes``: all paths; the log and the metrics name only these. ``public``: those that need no key. ``loopback``: whether the server
    listens on loopback only. ``on_response`` gets the route and the status of every response.

    Set ``draining`` to refuse new requests with 503; ``running`` counts those that are not finished.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: tuple[str, ...],
        limits: Limits,
        routes: Collection[str],
        public: Collection[str],
        loopback: bool,
        on_response: Callable[[str, int], None],
    ):
        self.draining = False
        self.running = 0
        self._app, self._limits, self._routes, self._public, self._on_response = app, limits, routes, public, on_response
        self._key_digests = [_digest(key.encode()) for key in keys]
        self._loopback = loopback
        self._salt = secrets.token_bytes(16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Errors become responses in OpenAI's shape: 401, 408, 413, 421, 499, 500 and 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange()
        route = scope["path"] if scope["path"] in self._routes else "other"
        self.running += 1
        try:
            await self._exchange(exchange, scope, receive, send)
        except Exception as error:
            # Without the error's message, which may quote the request. A client that left is not an error.
            if not isinstance(error, OSError):
                _log.error("%s failed: %s\n%s", route, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
            if not exchange.status:
                await self._refuse(internal_error(), exchange, scope, receive, send)
        finally:
            self.running -= 1
            self._on_response(route, exchange.status)
            self._log_exchange(route, scope, exchange)

    async def _exchange(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_access(scope)
            body = await self._read_body(exchange, scope, receive)
        except ApiError as error:
            await self._refuse(error, exchange, scope, receive, send)
            return

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._app(scope, replay, self._with_headers(exchange, send))

    def _check_access(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        # DNS rebinding: a page of another host whose name resolves to this machine could send requests as if it were this server's.
        # Behind a proxy the host name is the proxy's; there a key is required.
        if self._loopback and not self._key_digests and not is_loopback(_host_name(headers.get("host", ""))):
            raise ApiError(421, "This server answers to loopback names only.", code="wrong_host")
        if path in self._public:
            return
        if self._key_digests and not self._is_authorized(headers.get("authorization", "")):
            raise ApiError(401, "A valid API key is needed.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if self.draining and path != "/metrics":
            raise unavailable("The server is shutting down.")

    def _is_authorized(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip().encode("latin-1"))
        # Compare with all keys, so that the time does not depend on which one matches.
        return bool(sum([hmac.compare_digest(digest, valid) for valid in self._key_digests])) and scheme.lower() == "bearer"

    async def _read_body(self, exchange: _Exchange, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; ``None`` for methods without one. ``ApiError`` for a body that is too large or too slow."""
        if scope["method"] in ("GET", "HEAD"):
            return None
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await self._receive_body(exchange, receive)
        except TimeoutError:
            raise ApiError(408, "The body did not come in time.", code="timeout", headers={"Connection": "close"}) from None
        if exchange.body_bytes > self._limits.max_body_bytes:
            message = f"The body has more than {self._limits.max_body_bytes} bytes."
            raise ApiError(413, message, code="body_too_large", headers={"Connection": "close"})
        exchange.body_hash = hashlib.blake2b(body, key=self._salt, digest_size=6).hexdigest()
        return body

    async def _receive_body(self, exchange: _Exchange, receive: Receive) -> bytes:
        """The body's bytes. Of a body that is too large, count up to ``MAX_DISCARDED_BYTES`` and keep only the first part."""
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(499, "The client left.")
            part = message.get("body", b"")
            exchange.body_bytes += len(part)
            more = message.get("more_body", False)
            if exchange.body_bytes <= self._limits.max_body_bytes:
                parts.append(part)
            elif exchange.body_bytes > MAX_DISCARDED_BYTES:
                break
        return b"".join(parts)

    def _with_headers(self, exchange: _Exchange, send: Send) -> Send:
        """``send`` with the security headers added; it notes status and length."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            exchange.response_bytes += len(message.get("body", b""))
            await send(message)

        return send_with_headers

    async def _refuse(self, error: ApiError, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        await error.response(scope, receive, self._with_headers(exchange, send))

    def _log_exchange(self, route: str, scope: Scope, exchange: _Exchange) -> None:
        address = str((scope.get("client") or ("-",))[0])
        client = hashlib.blake2b(address.encode(), key=self._salt, digest_size=6).hexdigest()
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        seconds = time.monotonic() - exchange.began
        line = "%s %s %d in %.3f s, client %s, body %s of %d bytes, answer of %d bytes"
        sizes = exchange.body_bytes, exchange.response_bytes
        _log.info(line, method, route, exchange.status, seconds, client, exchange.body_hash, *sizes)


def allow_origins(app: ASGIApp, origins: Sequence[str], *, has_key: bool) -> ASGIApp:
    """The application, for pages of these origins too (CORS). ``ValueError`` for what is no origin, and for any page without a key."""
    for origin in origins:
        if origin == "*" and not has_key:
            raise ValueError(f"--allow-origin '*' lets every page that a browser opens use the model: set {API_KEYS} or {API_KEYS_FILE}")
        if origin != "*" and not re.fullmatch(r"https?://[^/\s*]+", origin):
            raise ValueError("--allow-origin is as http://HOST:PORT, without a path")
    exposed = ["X-Model-Version", IGNORED_HEADER]
    return CORSMiddleware(app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=exposed)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.rpartition(":")[0] or header
