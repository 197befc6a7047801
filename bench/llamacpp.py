"""llama.cpp in a process of its own (llamacpp.mjs, over the npm package node-llama-cpp), controlled through a pipe."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent


class LlamaCpp:
    """A running llama.cpp with one GGUF file loaded. ``RuntimeError`` where it is not installed or reports an error."""

    def __init__(self, file: Path, *, threads: int, length: int = 1024, sequences: int = 1):
        if not (HERE / "node_modules").is_dir():
            raise RuntimeError("llama.cpp is not installed here; run 'make bench-deps'")
        command = ["node", str(HERE / "llamacpp.mjs")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask("load", file=str(file.resolve()), threads=threads, length=length * sequences, sequences=sequences)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text, without control tokens."""
        ids: list[int] = self._ask("tokenize", text=text)["ids"]
        return ids

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Ids of ``count`` tokens by greedy decoding after ``ids``."""
        continuation: list[int] = self._ask("greedy", ids=ids, count=count)["ids"]
        return continuation

    def prefill_seconds(self, ids: list[int]) -> float:
        """Until the first token after the prompt."""
        return float(self._ask("prefill", ids=ids)["seconds"])

    def decode_seconds(self, prompts: list[list[int]], count: int) -> float:
        """For ``count`` more tokens of all prompts together, after the first."""
        return float(self._ask("decode", prompts=prompts, count=count)["seconds"])

    def _ask(self, command: str, **request: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"command": command, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in reply:
            raise RuntimeError(f"llama.cpp, {command}: {reply['error']}")
        return reply
