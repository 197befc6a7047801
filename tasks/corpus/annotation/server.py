"""The page's server, on this machine's loopback alone. Who does not know the token in the address gets nothing.

It logs nothing of what it is asked for, and an error's type without its message, which may quote a note.
"""

import hmac
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.corpus.annotation.marks import MAX_MARKS, Conflict, Mark

if TYPE_CHECKING:
    from tasks.corpus.annotation.session import Session

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page")
MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
MAX_BODY = 4 << 20  # bytes: MAX_MARKS of them take 2 MB
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Change(BaseModel):
    """The body of a change: all marks of a note, as they are from now on."""

    model_config = ConfigDict(strict=True, extra="forbid")

    revision: int
    done: bool
    accept: bool
    marks: tuple[Mark, ...] = Field(max_length=MAX_MARKS)


def listen(port: int) -> socket.socket:
    """A socket on loopback, before anything else takes time; port 0: a free one. ``ValueError`` where another program has the port."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise ValueError(f"port {port} of {HOST} cannot be used ({error}); take another one, or a free one: --port 0") from None
    return bound


def serve(session: "Session", bound: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM; ``announce`` gets its address, token included."""
    token, port = secrets.token_urlsafe(24), bound.getsockname()[1]
    config = uvicorn.Config(
        application(session, token, port),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        ws="none",
        lifespan="off",
    )
    announce(f"http://{HOST}:{port}/{token}/")
    _Server(config).run(sockets=[bound])


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal ends the server and not the process, which has the figures to write."""
        self.should_exit = True


def application(session: "Session", token: str, port: int) -> ASGIApp:
    """The ASGI application: the files of the page, the notes, their marks, the figures, all below ``/<token>/``."""
    api = _Api(session)
    routes = [
        Route("/", _file_endpoint(PAGE / "index.html")),
        *(Route(f"/{path.name}", _file_endpoint(path)) for path in sorted(PAGE.iterdir()) if path.suffix in MEDIA_TYPES),
        Route("/sample", api.sample),
        Route("/notes/{index:int}", api.note),
        Route("/notes/{index:int}", api.change, methods=["PUT"]),
        Route("/report", api.report, methods=["POST"]),
    ]
    return _Guard(Starlette(routes=routes, exception_handlers={_Refused: _refusal}), token, port)


def _file_endpoint(path: Path) -> Callable[[Request], FileResponse]:
    return lambda _: FileResponse(path, media_type=MEDIA_TYPES[path.suffix])


class _Api:
    """What the page asks for. Offsets are in code points."""

    def __init__(self, session: "Session"):
        self._session = session

    async def sample(self, _: Request) -> Response:
        return JSONResponse({"done": self._session.done(), "fresh": self._session.fresh(), "types": self._session.types})

    async def note(self, request: Request) -> Response:
        index = self._index(request)
        note = self._session.notes[index]
        masks = [{"start": mask.start, "end": mask.end, "type": mask.type, "replacement": mask.replacement} for mask in note.masks]
        repairs = [{"start": repair.start, "end": repair.end, "after": repair.after} for repair in note.repairs]
        content = {"source": note.source, "position": note.position, "text": note.text, "masks": masks, "repairs": repairs}
        return JSONResponse(content | self._session.state(index))

    async def change(self, request: Request) -> Response:
        index = self._index(request)
        try:
            body = _Change.model_validate_json(await _body(request))
            self._session.change(index, body.revision, body.marks, done=body.done, accept=body.accept)
        except ValidationError as error:
            raise _Refused(422, f"no marks: {error.errors(include_input=False, include_url=False)[0]['msg']}") from None
        except Conflict as error:
            raise _Refused(409, str(error)) from None
        except ValueError as error:
            raise _Refused(422, str(error)) from None
        except OSError as error:
            raise _Refused(507, f"the marks cannot be written: {error.strerror}") from None
        return JSONResponse(self._session.state(index))

    async def report(self, _: Request) -> Response:
        try:
            measured = await run_in_threadpool(self._session.report)
        except ValueError as error:
            raise _Refused(409, str(error)) from None
        except OSError as error:
            raise _Refused(507, f"the figures cannot be written: {error.strerror}") from None
        return JSONResponse(measured.model_dump())

    def _index(self, request: Request) -> int:
        index = int(request.path_params["index"])
        if index >= len(self._session.notes):
            raise _Refused(404, "there is no such note")
        return index


class _Refused(Exception):
    """A request that is not answered: its status, and why, for people."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


async def _refusal(_: Request, error: Exception) -> Response:
    status, reason = (error.status, error.reason) if isinstance(error, _Refused) else (500, "")
    return JSONResponse({"error": reason}, status)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise _Refused(413, "the marks are too many")
    return body


class _Guard:
    """ASGI middleware: nobody but the page gets in, and no error says more than it must."""

    def __init__(self, app: ASGIApp, token: str, port: int):
        self._app, self._token = app, token.encode()
        self._hosts = (f"{HOST}:{port}", f"localhost:{port}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self._app(self._admitted(scope), receive, send_with_headers)
        except _Refused as error:
            response = JSONResponse({"error": error.reason}, error.status)
            await response(scope, receive, send_with_headers)
        except OSError:
            pass  # the client left
        except Exception as error:
            print(f"annotate: a request failed: {type(error).__name__}", file=sys.stderr, flush=True)

    def _admitted(self, scope: Scope) -> Scope:
        """The scope without the token; ``_Refused`` for a request that is not of this page.

        A page of another host may name this one (its requests have its Origin), or let its own name lead here (they have its Host).
        """
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if host not in self._hosts or (origin and origin != f"http://{host}"):
            raise _Refused(403, "this address is for the page itself")
        token, slash, path = scope["path"].removeprefix("/").partition("/")
        if not (slash and hmac.compare_digest(token.encode(), self._token)):  # without the slash its files would be looked for elsewhere
            raise _Refused(404, "there is nothing here; open the address that the command printed")
        if scope["method"] != "GET" and headers.get("content-type") != "application/json":
            raise _Refused(415, "JSON is expected")
        return {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}
