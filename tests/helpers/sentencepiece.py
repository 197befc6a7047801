"""Small SentencePiece vocabularies in the structure of Llama 2's."""

import json
from pathlib import Path

from tokenizers import Tokenizer as TheirTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import generate_merges

from helpers.builders import sentences
from model.checkpoint.json_file import write_json

LLAMA2 = (  # the form of Llama 2's own chat template, in words of our own
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if loop.first and system %}{% set c = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set c = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
BYTES = {f"<0x{b:02X}>": b for b in range(256)}
SCHEMES = ("prepend", "always", "first", "never")
GEMMA = (  # the form of Gemma 3's own chat template, in words of our own
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def write_vocabulary(directory: Path, scheme: str, *, by_score: bool = False) -> Path:
    """A vocabulary as transformers' converter writes Llama 2's ("prepend") and later ones; "<s>" is in it and two merges make it.

    ``by_score``: every split of a piece is a merge, as of a SentencePiece model; else the merges are those that were learned.
    """
    tokenizer = TheirTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # SentencePiece learns nothing that reaches over a blank
    blank = [decoders.Strip(" ", 1, 0)] if scheme != "never" else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *blank])
    specials = ["<unk>", "<s>", "</s>", *BYTES]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([*(" ".join(pair) for pair in sentences(60)), "< > / s [INST] [/INST] SYS"], trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False) if scheme != "prepend" else None
    if scheme == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    source = json.loads(tokenizer.to_str())
    source["added_tokens"] = [token for token in source["added_tokens"] if token["id"] < 3]
    source["model"]["vocab"]["<s"] = len(source["model"]["vocab"])
    source["model"]["merges"] += [["<", "s"], ["<s", ">"]]
    if by_score:
        source["model"]["merges"] = _merges_by_score(source["model"]["vocab"], specials)
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    special_tokens = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    source["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, first],
        "pair": [bos, first, second],
        "special_tokens": special_tokens,
    }
    directory.mkdir(exist_ok=True)
    write_json(directory / "tokenizer.json", source)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": LLAMA2} | names)
    return directory


def _merges_by_score(vocab: dict[str, int], apart: list[str]) -> list[tuple[str, str]]:
    """As transformers' converter makes them from a SentencePiece model."""
    scores = {piece: -i for piece, i in vocab.items() if piece not in apart}
    merges: list[tuple[str, str]] = generate_merges(vocab, scores, set(apart))
    return merges


def write_gemma_vocabulary(directory: Path, *, size: int = 600) -> Path:
    """A vocabulary as in Gemma 3's releases: no blank is added, runs of blanks and line ends are added words."""
    controls = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    words = ["\n\n", "▁▁", "▁▁▁", "<unused0>", "[multimodal]"]
    tokenizer = TheirTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*controls, *words, *BYTES], show_progress=False)
    tokenizer.train_from_iterator([" ".join(pair) for pair in sentences(60)], trainer)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    source = json.loads(tokenizer.to_str())
    source["model"]["merges"] = _merges_by_score(source["model"]["vocab"], [*controls, *BYTES])
    source["added_tokens"] = [
        token | {"special": token["content"] in controls, "normalized": False}
        for token in source["added_tokens"]
        if token["content"] not in BYTES
    ]
    source["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "tokenizer.json", source)
    names = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": GEMMA} | names)
    write_json(directory / "generation_config.json", {"bos_token_id": 2, "eos_token_id": [1, 5]})
    return directory
