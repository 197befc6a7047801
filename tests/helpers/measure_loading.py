"""Loads a checkpoint as one of several processes that train: BASE PARAMS. Prints the bytes that loading took at the highest."""

import sys
import threading
from functools import partial
from pathlib import Path

import torch

from tasks.training.distributed import process_group, shard
from tasks.training.params import FinetuneParams
from tasks.training.prepare import load_base_with_adapter


def anonymous() -> int:
    """Bytes of this process's memory that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    base, params = Path(sys.argv[1]), FinetuneParams.model_validate_json(sys.argv[2])
    ended, highest = threading.Event(), 0

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.002):
            highest = max(highest, anonymous())

    with process_group() as group:
        shard(group, params.precision, torch.nn.Linear(64, 64))  # what is imported and made once is there before
        before = anonymous()
        watcher = threading.Thread(target=watch)
        watcher.start()
        part = partial(shard, group, params.precision)
        model = part(load_base_with_adapter(base, params, device=torch.device("cpu"), each_layer=part))
        ended.set()
        watcher.join()
        assert all(parameter.device.type == "cpu" for parameter in model.parameters())
        print(f"peak {highest - before}\n", end="", flush=True)


if __name__ == "__main__":
    main()
