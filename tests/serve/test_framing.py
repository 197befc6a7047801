"""Where a request ends is beyond doubt: what others may read otherwise is refused, and nothing that follows it is taken for a request."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.serving import COMPLETION, RunningServer, run_server

pytestmark = pytest.mark.slow

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /v1/nothing HTTP/1.1\r\n" + HOST
# What a proxy took for part of a body.
SMUGGLED = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"0\r\n\r\n"
REFUSED: dict[str, bytes] = {
    "length and chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + EMPTY,
    "chunks and length": POST + CHUNKED + b"Content-Length: 5\r\n\r\n" + EMPTY,
    "length and chunks, in capitals": POST + b"CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n" + EMPTY,
    "length of nothing and chunks": POST + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n" + EMPTY,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "one length twice": POST + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length that is no number": POST + b"Content-Length: 5_0\r\n\r\nhello",
    "a length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "no length": POST + b"Content-Length:\r\n\r\n",
    "a name that ends in a blank": POST + b"Content-Length : 5\r\n\r\nhello",
    "chunks behind a blank": POST + b"Transfer-Encoding : chunked\r\n\r\n" + EMPTY,
    "a folded length": POST + b"Content-Length:\r\n 5\r\n\r\nhello",
    "folded chunks": POST + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n" + EMPTY,
    "a folded header": POST + b"X-Note: one\r\n two\r\nContent-Length: 5\r\n\r\nhello",
    "a folded first header": b"POST /v1/nothing HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n",
    "a line feed alone": b"POST /v1/nothing HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 5\n\nhello",
    "one line feed alone": POST + b"X-Note: one\nContent-Length: 5\r\n\r\nhello",
    "a head that ends in a line feed": POST + b"Content-Length: 5\r\n\nhello",
    "a carriage return alone": POST + b"X-Note: one\rContent-Length: 5\r\n\r\n",
    "a null": POST + b"X-Note: \x00\r\nContent-Length: 5\r\n\r\nhello",
    "an encoding that is not supported": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "two encodings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + EMPTY,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + EMPTY,
    "chunked in two lines": POST + CHUNKED + CHUNKED + b"\r\n" + EMPTY,
    "no encoding": POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "nearly chunked": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + EMPTY,
    "a vertical tab before chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + EMPTY,
    "chunks in HTTP/1.0": b"POST /v1/nothing HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + EMPTY,
    "chunks in HTTP/1.0 that is kept": b"POST /v1/nothing HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n" + CHUNKED + b"\r\n" + EMPTY,
    "chunks in HTTP/0.9": b"POST /v1/nothing HTTP/0.9\r\n" + HOST + CHUNKED + b"\r\n" + EMPTY,
    "another version": b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two blanks": b"GET  /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
}
# Answered, and the last request of its connection.
CLOSED: dict[str, bytes] = {
    "chunks": POST + CHUNKED + b"\r\n5\r\nhello\r\n" + EMPTY,
    "an extension of a chunk": POST + CHUNKED + b"\r\n5;note=a\r\nhello\r\n" + EMPTY,
    "an extension of the last chunk": POST + CHUNKED + b"\r\n0;note=a\r\n\r\n",
    "a trailer": POST + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.0": b"GET /v1/nothing HTTP/1.0\r\n" + HOST + b"\r\n",
    "a wish to close": b"GET /v1/nothing HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
}
# One answer at most, which an error of the body may cut off.
BROKEN: dict[str, bytes] = {
    "an extension with a line feed": POST + CHUNKED + b"\r\n5;\nhello\r\n0\r\n\r\n",
    "a size with a line feed": POST + CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    "a size with a sign": POST + CHUNKED + b"\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a size in another notation": POST + CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer": POST + CHUNKED + b"\r\n2\r\nhello\r\n0\r\n\r\n",
    "a huge size": POST + CHUNKED + b"\r\nfffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a trailer with a line feed": POST + CHUNKED + b"\r\n0\r\nX: y\n\r\n",
}


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[RunningServer]:
    with run_server({"medical-llm": tiny_checkpoint}) as running:
        yield running


def connect(server: RunningServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=4)


def answers(server: RunningServer, *parts: bytes) -> list[bytes]:
    """All that comes until the server closes the connection, which it must do within seconds, answer by answer."""
    with connect(server) as client:
        for part in parts:
            client.sendall(part)
        came = b""
        try:
            while more := client.recv(65536):
                came += more
        except ConnectionResetError:
            pass
    return [b"HTTP/1." + answer for answer in came.split(b"HTTP/1.")[1:]]


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_whose_end_is_in_doubt_is_refused_and_its_connection_closed(server: RunningServer, name: str) -> None:
    [answer] = answers(server, REFUSED[name] + SMUGGLED)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b"connection: close" in head.lower()
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("name", REFUSED)
def test_behind_a_good_request_too(server: RunningServer, name: str) -> None:
    statuses = [answer[9:12] for answer in answers(server, SMUGGLED + REFUSED[name] + SMUGGLED)]
    assert statuses == [b"200", b"400"]


@pytest.mark.parametrize("name", CLOSED)
def test_a_request_that_is_not_plain_is_the_last_of_its_connection(server: RunningServer, name: str) -> None:
    [answer] = answers(server, CLOSED[name] + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 404") and b"connection: close" in answer.lower()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_body_ends_the_connection(server: RunningServer, name: str) -> None:
    assert [answer[9:12] for answer in answers(server, BROKEN[name] + SMUGGLED)] in ([], [b"400"], [b"404"])


def test_byte_by_byte_as_in_one_piece(server: RunningServer) -> None:
    for name in ("length and chunks", "one length twice", "a folded header", "one line feed alone"):
        whole = REFUSED[name] + SMUGGLED
        with connect(server) as client:
            came = b""
            try:
                for at in range(len(whole)):
                    client.sendall(whole[at : at + 1])
                while more := client.recv(65536):
                    came += more
            except (ConnectionResetError, BrokenPipeError):
                pass
        assert len(re.findall(rb"HTTP/1\.1 \d", came)) <= 1, name


def test_plain_requests_share_a_connection(server: RunningServer) -> None:
    body = json.dumps(COMPLETION | {"max_tokens": 1}).encode()
    ask = (
        b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    last = SMUGGLED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert [answer[9:12] for answer in answers(server, ask + ask, SMUGGLED, last)] == [b"200"] * 4


def test_chunks_are_read(server: RunningServer) -> None:
    body = json.dumps(COMPLETION | {"max_tokens": 1}).encode()
    chunks = b"".join(b"%x;note\r\n%s\r\n" % (len(piece), piece) for piece in (body[:7], body[7:])) + EMPTY
    ask = b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n" + CHUNKED + b"\r\n" + chunks
    [answer] = answers(server, ask + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 200")
