"""A thousand damaged headers of each format: a clean refusal or the whole model, in bounded memory and time."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.builders import write_tiny_checkpoint
from helpers.project import ROOT

from model.checkpoint.convert import convert

COUNT = 1000
# Runs in a process of its own, whose memory is limited to little more than what the imports take.
READ = """
import json, resource, sys
from pathlib import Path
import torch
from model.checkpoint import convert, gguf_file
from model.checkpoint.load import load_model
torch.set_num_threads(1)
folder = Path(sys.argv[1])
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
counts = {"refused": 0, "read": 0}
file = folder / sys.argv[2]
whole = file.read_bytes()
for line in sys.stdin:
    offset, data, size = json.loads(line)
    damaged = bytearray(whole)
    damaged[offset : offset + len(data)] = bytes(data)
    file.write_bytes(damaged[:size])
    try:
        if file.suffix == ".gguf":
            gguf_file.read_config(*gguf_file.open_file(file), file)
        else:
            load_model(folder)
        counts["read"] += 1
    except ValueError as error:
        assert str(error), "an error says something"
        counts["refused"] += 1
    except BaseException as error:
        sys.exit(f"{type(error).__name__} {error} after {line}")
print(json.dumps(counts))
"""


def damages(data: bytes, header: int, seed: int) -> Iterator[tuple[int, list[int], int]]:
    """Where, with which bytes, and how long the file is then: flipped bits, lying numbers, cut ends."""
    chance = random.Random(seed)
    lies = [(1 << bits) - less for bits in (8, 16, 31, 32, 60, 63, 64) for less in (1, 2)] + [0, 1, 7]
    for index in range(COUNT):
        offset = chance.randrange(header)
        match index % 4:
            case 0:
                yield offset, [data[offset] ^ 1 << chance.randrange(8)], len(data)
            case 1:
                yield offset, list(chance.choice(lies).to_bytes(8, "little")), len(data)
            case 2:
                yield offset, [chance.randrange(256) for _ in range(chance.randrange(1, 9))], len(data)
            case _:
                yield 0, [], chance.randrange(len(data))


def header_of(path: Path) -> int:
    """Bytes from the start that are not weights."""
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        return 8 + int.from_bytes(data[:8], "little")
    if path.suffix == ".gguf":
        return data.index(b"output_norm.weight") + 64
    if path.suffix == ".pth":
        return data.index(b"/data/0")
    return len(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "name"),
    [
        ("hf", "model.safetensors"),
        ("hf", "config.json"),
        ("hf", "model.safetensors.index.json"),
        ("gguf", "model.gguf"),
        ("meta", "consolidated.00.pth"),
        ("meta", "params.json"),
    ],
)
def test_damaged_headers_are_refused_cleanly(tmp_path: Path, format_: str, name: str) -> None:
    source = write_tiny_checkpoint(tmp_path / "source")
    folder = tmp_path / "there"
    if format_ == "gguf":
        folder.mkdir()
        convert(source, folder / name, "gguf")
    else:
        convert(source, folder, format_)
    if name.endswith("index.json"):
        (folder / "model.safetensors").rename(folder / "one.safetensors")
        from safetensors import safe_open

        with safe_open(folder / "one.safetensors", "pt") as weights:
            index = {"weight_map": dict.fromkeys(weights.keys(), "one.safetensors")}
        (folder / name).write_text(json.dumps(index))
    if format_ == "meta":
        (folder / "config.json").unlink()
    data = (folder / name).read_bytes()
    lines = "\n".join(json.dumps(d) for d in damages(data, header_of(folder / name), seed=len(name)))
    command = [sys.executable, "-c", READ, str(folder), name]
    process = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, check=False, timeout=600)
    assert process.returncode == 0, process.stderr[-2000:]
    counts = json.loads(process.stdout)
    print(counts)
    assert counts["refused"] + counts["read"] == COUNT and counts["refused"] > COUNT / 3
