"""``python -m model COMMAND``: look at a checkpoint, convert it, generate text with it."""

import argparse
import sys
import time
from pathlib import Path


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description="Checkpoints of Llama-family models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    looked = commands.add_parser("inspect", help="say what a checkpoint holds: Hugging Face's directory, Meta's, or a GGUF file")
    looked.set_defaults(run=inspect)
    looked.add_argument("source", type=Path)
    converted = commands.add_parser("convert", help="write a checkpoint in another format")
    converted.set_defaults(run=convert)
    converted.add_argument("source", type=Path)
    converted.add_argument("target", type=Path, help="must not exist yet")
    converted.add_argument("--format", choices=("hf", "meta", "gguf"), default="hf")
    converted.add_argument("--files", type=int, default=1, help="model-parallel files of Meta's format")
    converted.add_argument("--type", choices=("f16", "q8_0"), default="f16", help="of the matrices in GGUF")
    asked = commands.add_parser("generate", help="stream a continuation of a prompt, or with --chat an answer")
    asked.set_defaults(run=generate)
    asked.add_argument("checkpoint", type=Path)
    asked.add_argument("--prompt", required=True)
    asked.add_argument("--chat", action="store_true", help="ask through the chat template instead of continuing the text")
    asked.add_argument("--max-tokens", type=int, default=128)
    asked.add_argument("--temperature", type=float, default=0.6, help="0 takes the likeliest token (default 0.6)")
    asked.add_argument("--top-p", type=float, default=0.9, help="smallest set of tokens that reaches this probability (default 0.9)")
    asked.add_argument("--top-k", type=int, default=0, help="the k likeliest tokens; 0: all")
    asked.add_argument("--min-p", type=float, default=0.0, help="at least this share of the likeliest token's probability")
    asked.add_argument("--repetition-penalty", type=float, default=1.0)
    asked.add_argument("--seed", type=int)
    asked.add_argument("--stop", action="append", default=[], help="a text that ends the answer; may be given several times")
    asked.add_argument("--quantize", choices=["int8"], help="keep the weights in fewer bits: faster, slightly less exact")
    asked.add_argument("--tokenizer", type=Path, help="a directory, a tokenizer.json or a ranks file; default: the checkpoint's own")
    measured = commands.add_parser("quantize", help="measure what int8 weights change on a text")
    measured.set_defaults(run=quantize)
    measured.add_argument("checkpoint", type=Path)
    measured.add_argument("text", type=Path)
    measured.add_argument("--tokens", type=int, default=2048, help="of the text's beginning (default 2048)")
    return parser


def inspect(options: argparse.Namespace) -> None:
    from model.checkpoint.convert import inspect

    print(inspect(options.source))


def convert(options: argparse.Namespace) -> None:
    from model.checkpoint.convert import convert

    convert(options.source, options.target, options.format, files=options.files, kind=options.type)
    print(f"convert: wrote {options.target} ({options.format})")


def generate(options: argparse.Namespace) -> None:
    import torch

    from model.generation import native
    from model.generation.completion import Llama, SamplingOptions

    llama = Llama.build(options.checkpoint, tokenizer_path=options.tokenizer, quantize=options.quantize)
    if isinstance(why := native.library(), str) and not torch.cuda.is_available():
        print(f"[slower, through torch: {why}]", file=sys.stderr)
    if options.chat:
        prompt = llama.tokenizer.chat_prompt([{"role": "user", "content": options.prompt}])
    else:
        prompt = llama.tokenizer.prompt(options.prompt)
        print(options.prompt, end="", flush=True)
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
    sampling: SamplingOptions = {name: getattr(options, name) for name in names}  # type: ignore[assignment]
    times = [time.perf_counter()]
    for token, text in llama.stream(prompt, max_gen_len=options.max_tokens, stop=options.stop, **sampling):
        print(text, end="", flush=True)
        times += [time.perf_counter()] if token is not None else []
    print()
    print(f"[{_speed(len(prompt), times)}]", file=sys.stderr)


def _speed(read: int, times: list[float]) -> str:
    """``times``: of the start and of each token. The first token comes when the prompt has been read."""
    written = len(times) - 1
    if written < 2:
        return f"{read} tokens read, {written} written"
    reading, writing = times[1] - times[0], times[-1] - times[1]
    return f"{read} tokens read at {read / reading:.1f} tokens/s, {written} written at {(written - 1) / writing:.1f} tokens/s"


def quantize(options: argparse.Namespace) -> None:
    import torch

    from model.checkpoint.load import load_model
    from model.generation.quantize import KINDS, difference, store
    from model.tokenizer.tokenizer import Tokenizer

    ids = Tokenizer.from_path(options.checkpoint).prompt(options.text.read_text(encoding="utf-8"))[: options.tokens]
    length = min(256, len(ids))
    if length < 2:
        raise ValueError(f"{options.text} has fewer than two tokens")
    rows = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    stored, int8 = (store(load_model(options.checkpoint, dtype=torch.bfloat16), kind) for kind in KINDS)
    found = [difference(stored, int8, row[None]) for row in rows]
    kl, agreement = (sum(row[what] for row in found) / len(found) for what in ("kl", "greedy_agreement"))
    print(f"{rows.numel()} tokens: Kullback-Leibler divergence {kl:.4f} nats, the same likeliest token at {agreement:.1%}")


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    options = arguments().parse_args()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{options.command}: {error}")


if __name__ == "__main__":
    main()
