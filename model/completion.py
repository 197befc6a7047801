"""Text in, text out: a checkpoint directory's model with its tokenizer and chat template."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model import checkpoint
from model.generate import generate
from model.llama import Transformer
from model.tokenizer import Message, Tokenizer


@dataclass(frozen=True)
class Completion:
    """A generated text and the ids that it consists of."""

    text: str
    ids: tuple[int, ...]


class Llama:
    """A model with its tokenizer, ready to complete text."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, max_batch_size: int):
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch_size = max_batch_size

    @classmethod
    def build(
        cls,
        ckpt_dir: str | Path,
        *,
        tokenizer_path: str | Path | None = None,
        max_seq_len: int | None = None,
        max_batch_size: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> "Llama":
        """Open a checkpoint directory; the tokenizer is the directory's own unless another directory is given.

        ``max_seq_len`` may shorten the context, which bounds the memory that generating takes.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = checkpoint.load(Path(ckpt_dir), dtype=dtype, device=device, max_seq_len=max_seq_len)
        tokenizer = Tokenizer.from_directory(Path(tokenizer_path or ckpt_dir))
        if tokenizer.n_vocab > model.config.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.n_vocab} ids, the model in {ckpt_dir} only {model.config.vocab_size}")
        return cls(model, tokenizer, max_batch_size=max_batch_size)

    def text_completion(
        self,
        prompts: Sequence[str],
        *,
        max_gen_len: int = 64,
        temperature: float = 0.6,
        top_p: float = 0.9,
        seed: int | None = None,
    ) -> list[Completion]:
        """Continuations of running text."""
        return self._complete([self.tokenizer.encode(p) for p in prompts], max_gen_len, temperature, top_p, seed)

    def chat_completion(
        self,
        dialogs: Sequence[Sequence[Message]],
        *,
        max_gen_len: int = 256,
        temperature: float = 0.6,
        top_p: float = 0.9,
        seed: int | None = None,
    ) -> list[Completion]:
        """Answers to conversations, through the checkpoint's chat template."""
        return self._complete([self.tokenizer.chat_prompt(d) for d in dialogs], max_gen_len, temperature, top_p, seed)

    def stream(self, prompt: Sequence[int], *, max_gen_len: int, temperature: float, top_p: float, seed: int | None) -> Iterator[int]:
        """The ids of one continuation as they come."""
        steps = generate(
            self.model,
            [prompt],
            max_new_tokens=max_gen_len,
            temperature=temperature,
            top_p=top_p,
            stop_ids=self.tokenizer.stop_ids,
            seed=seed,
        )
        for (token,) in steps:
            assert token is not None
            yield token

    def _complete(self, prompts: list[list[int]], max_gen_len: int, temperature: float, top_p: float, seed: int | None) -> list[Completion]:
        if len(prompts) > self.max_batch_size:
            raise ValueError(f"{len(prompts)} prompts are more than max_batch_size of {self.max_batch_size}")
        rows: list[list[int]] = [[] for _ in prompts]
        for step in generate(
            self.model,
            prompts,
            max_new_tokens=max_gen_len,
            temperature=temperature,
            top_p=top_p,
            stop_ids=self.tokenizer.stop_ids,
            seed=seed,
        ):
            for row, token in zip(rows, step, strict=True):
                if token is not None:
                    row.append(token)
        return [Completion(self.tokenizer.decode(ids), tuple(ids)) for ids in rows]


def main() -> None:
    """``python -m model.generate CHECKPOINT --prompt "…"``: stream a continuation, or with --chat an answer."""
    parser = argparse.ArgumentParser(prog="python -m model.generate", description="Generate text with a checkpoint directory.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--chat", action="store_true", help="ask through the chat template instead of continuing the text")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    try:
        _run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"generate: {error}")


def _run(options: argparse.Namespace) -> None:
    llama = Llama.build(options.checkpoint)
    if options.chat:
        prompt = llama.tokenizer.chat_prompt([{"role": "user", "content": options.prompt}])
    else:
        prompt = llama.tokenizer.encode(options.prompt)
        print(options.prompt, end="")
    started, count, pending = time.perf_counter(), 0, b""
    settings = {"max_gen_len": options.max_tokens, "temperature": options.temperature, "top_p": options.top_p, "seed": options.seed}
    for token in llama.stream(prompt, **settings):
        count += 1
        text, pending = _whole_characters(pending + llama.tokenizer.decode_bytes([token]))
        print(text, end="", flush=True)
    seconds = time.perf_counter() - started
    print(pending.decode(errors="replace"))
    print(f"[{count} tokens, {count / seconds:.1f} tokens/s]", file=sys.stderr)


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """The text of the complete characters at the front, and the bytes of an unfinished one."""
    for cut in range(len(data), max(len(data) - 4, -1), -1):
        try:
            return data[:cut].decode(), data[cut:]
        except UnicodeDecodeError:
            continue
    return data.decode(errors="replace"), b""
