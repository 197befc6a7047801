"""Trains a random model for three steps: CONFIG PARAMS, both JSON. Prints the bytes of tensors at the highest."""

import json
import sys
from functools import partial
from itertools import accumulate, islice

import numpy as np
import torch

from model import lora
from model.config import Family, LlamaConfig
from model.llama import Transformer
from model.nf4 import Nf4Linear, quantize_
from tasks.corpus.shards.format import Entry, Split
from tasks.training import checkpoints, loop, optim, prepare
from tasks.training.distributed import process_group
from tasks.training.packing import training_rows
from tasks.training.params import FinetuneParams

ROWS = 24


def main() -> None:
    sizes = json.loads(sys.argv[1])
    family = Family(**sizes["family"] | {"layers": tuple(sizes["family"]["layers"])})
    config, params = LlamaConfig(**sizes | {"family": family}), FinetuneParams.model_validate_json(sys.argv[2])
    length = params.seq_len
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=ROWS * length, dtype=np.uint32)
    entries = [Entry(str(n), "text", "random", 0) for n in range(ROWS)]
    split = Split([tokens], [np.ones(len(tokens), np.uint8)], [np.arange(ROWS + 1) * length], entries, np.array([0, ROWS]))
    model = Transformer(config)
    if params.training_mode.quantized:
        model = quantize_(model, torch.device("cpu"))
    quantized = [tensor for module in model.modules() if isinstance(module, Nf4Linear) for tensor in module.tensors()]
    if params.training_mode.adapter:
        lora.add(model, prepare.lora_config(params), seed=0)
    model.embed_tokens.weight.data = model.embed_tokens.weight.bfloat16().float()  # as most bases are stored
    if params.weights == "bfloat16":
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data if prepare.is_norm(name) else parameter.data.bfloat16()
    layers = config.n_layers if params.activation_checkpointing else 0
    prepare.prepare_for_training(model, params, torch.device("cpu"), checkpointed_layers=layers)
    rows = training_rows(split, length, seed=0)
    with process_group() as group:
        optimizer = optim.make_optimizer(checkpoints.trained(model).values(), params)
        step = partial(loop.update, model, optimizer, split=split, params=params, group=group)
        for index in (1, 2):
            step(index, [row for row, _ in islice(rows, params.batch)])
        moments = [tensor for of_one in optimizer.state.values() for tensor in of_one.values() if isinstance(tensor, torch.Tensor)]
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *quantized, *moments))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
            step(3, [row for row, _ in islice(rows, params.batch)])
    assert profiled.profiler
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    print(held + max(accumulate(changes)))


if __name__ == "__main__":
    main()
