"""A token classifier with weights set by hand: it gives each of some words its label, whatever stands around them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
POSITIONS = 64


def write_token_classifier(folder: Path, words: Mapping[str, str], *, blind: int = 0, config: Mapping[str, Any] | None = None) -> Path:
    """A folder with a BERT of one layer that gives ``words``, in lower case, their labels, and other words O.

    A word may be a whole one or the rest of one, ``##son``. ``blind``: so many positions at either edge of what the model reads are O.
    """
    folder.mkdir(parents=True)
    labels = ["O", *sorted(set(words.values()))]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    width = 4 * len(labels)
    bert = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=POSITIONS,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    model = BertForTokenClassification(bert).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(float("LayerNorm.weight" in name))  # nothing but the embeddings and the classifier counts
        model.classifier.weight[:, : len(labels)] = torch.eye(len(labels))
        embeddings = model.bert.embeddings
        for token, i in vocabulary.items():
            embeddings.word_embeddings.weight[i, labels.index(words.get(token, "O"))] = 10.0
        for i in (*range(blind), *range(POSITIONS - 2 - blind, POSITIONS - 2)) if blind else ():
            embeddings.position_embeddings.weight[i, 0] = 100.0
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(bert.to_dict() | dict(config or {}), default=str))
    return folder


def to_onnx(source: Path, folder: Path) -> Path:
    """The same model as a graph in a folder of its own."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    model = BertForTokenClassification.from_pretrained(source, attn_implementation="eager", return_dict=False).eval()
    ids = torch.tensor([[2, 1, 1, 3]])
    torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        str(folder / "model.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={name: {1: "tokens"} for name in ("input_ids", "attention_mask", "logits")},
        dynamo=False,
    )
    return folder
