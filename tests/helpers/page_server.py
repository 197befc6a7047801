"""A server with the page and a fake API, for answers that a real model does not give on demand: markup, endless answers, refusals.

The last line of a prompt chooses the scenario: "markup", "markdown", "queued", "endless", "busy", "long" or "cut"; anything else gets a
short answer, and a request with a JSON Schema the extraction from ``NOTE``.
"""

import codecs
import json
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE = Path(__file__).resolve().parents[2] / "serve" / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
MARKUP = '<script>window.ran = 1</script><img src=x onerror="window.ran = 2"><b>bold</b>'
SHORT = (
    "Arach|no|dact|yly| is| a| condition| in| which| the| fingers| and| toes| are| unusually| long| and| slender|, like| those| of| a|"
    " spider|.| It| may| occur| alone| or| as| a| feature| of| Mar|fan| syndrome|, for| which| 39| °C| and| naïve| are| no| signs|."
)
MARKDOWN = (
    "# Signs|\n\n|**Fev|er**| and| cough|:\n|*| one|\n*| two|\n\n|1.| rest|\n\n|```|\nBP|  120|/80\n|```|\n\n"
    "¦| a| ¦| b| ¦\n|¦-¦-¦\n|¦| 1| ¦| 2| ¦\n"
)  # tokens end at |; ¦ is written as |
NOTE = """Day 3 of Mrs. Holloway, 86 years old. <b>BP</b> 131/68 mmHg, HR 104/min, T 37.6°C.
WBC 15,780 /uL. Continue Ceftriaxone, amlodipine."""
EXTRACTED = (
    '{"vital_signs":{"|systolic|_bp":131|,"diastolic_bp":|68|,"heart_rate":86|,"temperature":37|.|6|},"laboratory":{"wbc":|15780.0|},'
    '"medications":["Ceftri|axone|","Amlodipine|","Hep|arin|"]}'
)
TASK = {
    "instructions": ["Extract the values of this note as JSON.", "Which values does it state?"],
    "schema": {
        "type": "object",
        "properties": {
            "vital_signs": {
                "type": "object",
                "properties": {
                    "systolic_bp": {"type": "number", "x-unit": "mm[Hg]"},
                    "diastolic_bp": {"type": "number", "x-unit": "mm[Hg]"},
                    "heart_rate": {"type": "number", "x-unit": "/min"},
                    "temperature": {"type": "number", "x-unit": "Cel"},
                },
            },
            "laboratory": {"type": "object", "properties": {"wbc": {"type": "number", "x-unit": "/uL"}}},
            "medications": {"type": "array", "items": {"type": "string"}},
        },
    },
    "stated": {
        "systolic_bp": ["BP #/*"],
        "diastolic_bp": ["BP */#", "blood pressure */#"],
        "heart_rate": ["HR #"],
        "temperature": ["T #"],
        "wbc": ["WBC #"],
    },
}
FIGURE = {"value": 2.4137, "low": 2.3516, "high": 2.4702}
METRICS = [
    {
        "metric": metric,
        "split": "test",
        "items": 412,
        "base": FIGURE,
        "tuned": {"value": 1.7021, "low": 1.6602, "high": 1.7433},
        "change": {"value": -0.7116, "low": -0.7402, "high": -0.6841},
    }
    for metric in ("answer_nll", "answer_content_nll", "bits_per_byte", "choice")
]
CARD = f"""---
license: apache-2.0
---
# medical-llm

A language model. **It is not a medical device.** {MARKUP}

## Training data

| file | title | licence |
|---|---|---|
| hp.obo | Human Phenotype Ontology | as its makers state |

## Limits

* A lower loss does not say that answers are true.
* No clinician has rated its answers.

## Provenance

`passport.json` beside this file names every digest.
"""
PASSPORT = {
    "version": "3",
    "verified": True,
    "passport_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "made": "2026-11-25T06:50:18.234+00:00",
    "code": {"commit": "67d74931c0ffee67d74931c0ffee67d74931c0ff", "dirty": "false"},
    "corpus": [
        {
            "path": "hp.obo",
            "sha256": "ab" * 32,
            "title": "Human Phenotype Ontology",
            "licence": "HPO licence",
            "credit": "Cite Köhler et al.",
        },
        {"path": "notes/letters.csv", "sha256": "cd" * 32, "title": None, "licence": None, "credit": None},
    ],
    "metrics": METRICS,
    "decision": {"verdict": "champion", "reasons": ["better on answer_nll by more than 0.005"]},
    "card": CARD,
    "tasks": {"measurements": TASK},
}


class Server(ThreadingHTTPServer):
    """Listens on a free port of loopback. With ``key``, all routes but the page's need it. ``pause``: seconds after each token."""

    daemon_threads = True

    def __init__(self, *, key: str = "", models: tuple[str, ...] = ("medical-llm", "medical-llm@previous"), pause: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.key, self.models, self.pause = key, models, pause
        self.bodies: list[dict[str, Any]] = []  # of all POST requests for answers
        self.preferences: list[dict[str, Any]] | None = None  # that were stored, if they are
        self.answers: dict[str, str] = {}  # of models that answer otherwise than with SHORT
        self.client_left = threading.Event()  # set when a client disconnects before its answer is complete
        self.busy = 1  # how many "busy" requests are refused before one is answered
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        """Stop serving, and close the port."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """The page's files, ``/v1/models``, ``/passport``, and both completion routes."""

    server: Server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """A file of the page, or JSON of the API."""
        address = urlsplit(self.path)
        if (file := PAGE / (address.path.strip("/") or "index.html")).is_file():
            self._send(200, file.read_bytes(), TYPES[file.suffix])
        elif not self._allowed():
            return
        elif address.path == "/v1/models":
            models = [{"id": model, "object": "model", "max_model_len": 512} for model in self.server.models]
            self._json(200, {"object": "list", "data": models, "stores_preferences": self.server.preferences is not None})
        elif address.path == "/passport":
            self._json(200, PASSPORT | {"model": parse_qs(address.query)["model"][0]})
        else:
            self._refuse(404, "There is nothing here.")

    def do_POST(self) -> None:
        """A stream, or the refusal that the prompt asks for."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        if self.path == "/preferences" and self.server.preferences is not None:
            self.server.preferences.append(body)
            self._json(201, {"stored": True})
            return
        self.server.bodies.append(body)
        chat = self.path == "/v1/chat/completions"
        scenario = (body["messages"][-1]["content"] if chat else body["prompt"]).splitlines()[-1]
        if scenario == "busy" and self.server.busy:
            self.server.busy -= 1
            self._refuse(429, "Full.", {"Retry-After": "2"})
        elif scenario == "long":
            self._refuse(400, f"512 tokens are the most; this has 9000. {MARKUP}", code="context_length_exceeded")
        else:
            self._stream(body, chat, scenario)

    def _stream(self, body: dict[str, Any], chat: bool, scenario: str) -> None:
        self._head(200, "text/event-stream")
        try:
            for place, read in ((2, 0), (0, 64), (0, 448)) if scenario == "queued" else ():
                progress = {"index": 0, "queue": place, "prompt_tokens": 900, "read_tokens": read}
                self._event({"model": body["model"], "choices": [], "progress": progress})
                time.sleep(0.8)
            text = EXTRACTED if "response_format" in body else self.server.answers.get(body["model"]) or TEXTS.get(scenario, SHORT)
            letters = codecs.getincrementaldecoder("utf-8")()
            for token in tokens(scenario, text):
                self._event(
                    {
                        "model": body["model"],
                        "system_fingerprint": "3-9f86d081884c",
                        "choices": [choice(token, letters.decode(token), chat)],
                    }
                )
                time.sleep(0.02 if scenario == "endless" else self.server.pause)
            if scenario != "cut":
                self._event(
                    {
                        "model": body["model"],
                        "system_fingerprint": "3-9f86d081884c",
                        "choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": "stop"}],
                    }
                )
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.client_left.set()

    def _event(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _allowed(self) -> bool:
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._refuse(401, "No key, or a wrong one.")
            return False
        return True

    def _refuse(self, status: int, message: str, headers: dict[str, str] | None = None, code: str | None = None) -> None:
        self._json(status, {"error": {"message": message, "type": "refused", "param": None, "code": code}}, headers)

    def _json(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self._head(status, kind, {"Content-Length": str(len(content)), **(headers or {})})
        self.wfile.write(content)

    def _head(self, status: int, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Security-Policy": CSP, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


TEXTS = {"markup": MARKUP.replace(" ", "| "), "markdown": MARKDOWN}


def tokens(scenario: str, text: str) -> Iterator[bytes]:
    """The answer's tokens. A character of several bytes is spread over as many tokens."""
    if scenario == "endless":
        yield from (f" {n}".encode() for n in range(100_000))
    for token in text.split("|")[: 4 if scenario == "cut" else None]:
        content = token.replace("¦", "|").encode()
        yield from ([content] if content.isascii() else [bytes([byte]) for byte in content])


def choice(token: bytes, text: str, chat: bool) -> dict[str, Any]:
    """A token with its alternatives and a probability that varies from token to token, in the shape of chat or of completions.

    ``text``: the characters that are complete with this token.
    """
    name = token.decode(errors="replace")
    logprob = math.log(0.08 + 0.9 * ((sum(token) * 37) % 100) / 100)
    likely = {name: logprob, " the": math.log(0.05), " <b>": math.log(0.02), "\n": math.log(0.004)}
    if not chat:
        logprobs: dict[str, Any] = {"tokens": [name], "token_logprobs": [logprob], "top_logprobs": [likely], "text_offset": [0]}
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}
    top = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in likely.items()]
    entry = {"token": name, "logprob": logprob, "bytes": list(token), "top_logprobs": top}
    return {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}, "finish_reason": None}
