"""Tiny real parts: made-up sentences, a random model, a checkpoint, tables and reports as stages write them."""

import csv
import json
from pathlib import Path

import torch

from model.checkpoint.config import config_json
from model.checkpoint.hf import save_weights
from model.checkpoint.json_file import write_json
from model.config import LlamaConfig
from model.llama import Transformer
from tasks.base import CHATML

TINY = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=64, vocab_size=400, head_dim=8, max_seq_len=256, tied=True)


SIGNS = ("fever", "cough", "a red rash", "blurred vision", "joint pain", "fatigue", "a stiff neck", "swollen ankles")


def sentences(count: int) -> list[tuple[str, str]]:
    """Made-up questions and answers, all different."""
    return [
        (f"What are the signs of condition {n}?", f"Condition {n} shows {SIGNS[n % 8]}, later {SIGNS[(n // 8) % 8]} on day {n}.")
        for n in range(count)
    ]


def write_tiny_checkpoint(directory: Path, config: LlamaConfig = TINY, *, seed: int = 0) -> Path:
    """A random model with a byte-level BPE vocabulary learned from the made-up corpus."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    directory.mkdir(parents=True)
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=config.vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(pair) for pair in sentences(200)], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": CHATML},
    )
    write_json(directory / "generation_config.json", {"eos_token_id": 2})
    write_json(directory / "config.json", config_json(config, torch.float32, eos_id=2))
    save_weights(dict(random_model(config, seed).named_parameters()), directory, dtype=torch.float32)
    return directory


def random_model(config: LlamaConfig, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if parameter.dim() == 1 else 0.0))
    return model.eval()


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Question", "Answer"), *rows])


def write_cleaning_report(folder: Path, *, public: bool = False) -> None:
    """What preprocess reports, of a corpus of which nothing was removed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": "records", "source": "s", "rule": "", "records": 83, "examples": ["0"]}]
    (folder / "funnel.json").write_text(json.dumps({"rows": rows, "decontamination": [0] * 10, "public": public}))
    share = {"name": "SSN", "half": "all", "templates": 24, "injections": 96, "share": 0.99, "low": 0.9, "high": 1.0}
    (folder / "deidentification.json").write_text(json.dumps({"recall": [share], "hard_negatives": []}))
