"""``python -m model COMMAND``: look at a checkpoint, convert it, generate text with it."""

import argparse
import signal
import sys
import time
from pathlib import Path

INTERRUPTED = 128 + signal.SIGINT  # exit status after Ctrl-C, as of a shell


def arguments(prog: str = "python -m model") -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run`` to its function below. ``prog``: what the user typed, for messages."""
    parser = argparse.ArgumentParser(prog=prog, description="Checkpoints of Llama-family models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspect_parser = commands.add_parser("inspect", help="describe a checkpoint: Hugging Face's directory, Meta's, or a GGUF file")
    inspect_parser.set_defaults(run=inspect)
    inspect_parser.add_argument("source", type=Path)
    convert_parser = commands.add_parser("convert", help="write a checkpoint in another format")
    convert_parser.set_defaults(run=convert)
    convert_parser.add_argument("source", type=Path)
    convert_parser.add_argument("target", type=Path, help="must not exist yet")
    convert_parser.add_argument("--format", choices=("hf", "meta", "gguf"), default="hf")
    convert_parser.add_argument("--files", type=int, default=1, help="model-parallel files of Meta's format")
    convert_parser.add_argument("--type", choices=("f32", "bf16", "f16", "q8_0"), default="f16", help="of the matrices in GGUF")
    generate_parser = commands.add_parser("generate", help="stream a continuation of a prompt, or with --chat an answer")
    generate_parser.set_defaults(run=generate)
    generate_parser.add_argument("checkpoint", type=Path)
    generate_parser.add_argument("--prompt", required=True)
    generate_parser.add_argument("--chat", action="store_true", help="ask through the chat template instead of continuing the text")
    generate_parser.add_argument("--max-tokens", type=int, default=128)
    generate_parser.add_argument("--temperature", type=float, default=0.6, help="0 takes the likeliest token (default 0.6)")
    generate_parser.add_argument(
        "--top-p", type=float, default=0.9, help="smallest set of tokens that reaches this probability (default 0.9)"
    )
    generate_parser.add_argument("--top-k", type=int, default=0, help="the k likeliest tokens; 0: all")
    generate_parser.add_argument("--min-p", type=float, default=0.0, help="at least this share of the likeliest token's probability")
    generate_parser.add_argument("--repetition-penalty", type=float, default=1.0)
    generate_parser.add_argument("--seed", type=int)
    generate_parser.add_argument("--stop", action="append", default=[], help="a text that ends the answer; may be given several times")
    generate_parser.add_argument("--quantize", choices=["int8", "int4"], help="keep the weights in fewer bits: faster, slightly less exact")
    generate_parser.add_argument(
        "--tokenizer", type=Path, help="a directory, a tokenizer.json or a tiktoken BPE file; default: the checkpoint's own"
    )
    quantize_parser = commands.add_parser("quantize", help="measure what int8 or int4 weights change on a text")
    quantize_parser.set_defaults(run=quantize)
    quantize_parser.add_argument("checkpoint", type=Path)
    quantize_parser.add_argument("text", type=Path)
    quantize_parser.add_argument("--type", choices=("int8", "int4"), default="int8", help="of the weights (default int8)")
    quantize_parser.add_argument("--tokens", type=int, default=2048, help="of the text's beginning (default 2048)")
    return parser


def inspect(options: argparse.Namespace) -> None:
    """Print what a checkpoint holds."""
    from model.checkpoint.convert import inspect

    print(inspect(options.source))


def convert(options: argparse.Namespace) -> None:
    """Write a checkpoint in another format."""
    from model.checkpoint.convert import convert

    convert(options.source, options.target, options.format, files=options.files, kind=options.type)
    print(f"convert: wrote {options.target} ({options.format})")


def generate(options: argparse.Namespace) -> None:
    """Stream a continuation or an answer to standard output, and its speed to standard error."""
    import torch

    from model.generation import compiled
    from model.generation.completion import Llama, SamplingOptions

    llama = Llama.build(options.checkpoint, tokenizer_path=options.tokenizer, quantize=options.quantize)
    if isinstance(why := compiled.library(), str) and not torch.cuda.is_available():
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
    """``times``: of the start and of each token, in seconds. The prefill ends with the first token."""
    written = len(times) - 1
    if written < 2:
        return f"{read} tokens read, {written} written"
    reading, writing = times[1] - times[0], times[-1] - times[1]
    return f"{read} tokens read at {read / reading:.1f} tokens/s, {written} written at {(written - 1) / writing:.1f} tokens/s"


def quantize(options: argparse.Namespace) -> None:
    """Print how far int8 or int4 weights are from bfloat16 ones on a text. ``ValueError`` for one of fewer than two tokens."""
    import torch

    from model.checkpoint.load import load_model
    from model.generation.quantize import difference, quantize_
    from model.tokenizer.tokenizer import Tokenizer

    ids = Tokenizer.from_path(options.checkpoint).prompt(options.text.read_text(encoding="utf-8"))[: options.tokens]
    length = min(256, len(ids))
    if length < 2:
        raise ValueError(f"{options.text} has fewer than two tokens")
    rows = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    bfloat16, other = (quantize_(load_model(options.checkpoint, dtype=torch.bfloat16), kind) for kind in ("bfloat16", options.type))
    differences = [difference(bfloat16, other, row[None]) for row in rows]
    kl, agreement = (sum(row[measure] for row in differences) / len(differences) for measure in ("kl", "greedy_agreement"))
    print(f"{rows.numel()} tokens: Kullback-Leibler divergence {kl:.4f} nats, the same likeliest token at {agreement:.1%}")


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    options = arguments().parse_args()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"{options.command}: {error}")
    except KeyboardInterrupt:
        print(f"{options.command}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
