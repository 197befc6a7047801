"""Small vocabularies in the structure of Qwen's."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as TheirTokenizer

from helpers.builders import sentences
from helpers.chat_templates import TEMPLATES
from model.checkpoint.json_file import write_json
from model.tokenizer.vocabulary import QWEN2_PATTERN


def write_qwen_vocabulary(directory: Path, *, template: str = TEMPLATES["Qwen 3"]) -> Path:
    """A small vocabulary as in Qwen's releases: NFC, single digits, words for tools and thoughts."""
    tokenizer = TheirTokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([" ".join(pair) for pair in sentences(60)], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("<tool_call>", "</tool_call>", "<think>", "</think>")])
    write_json(directory / "tokenizer.json", json.loads(tokenizer.to_str()))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": template}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | names)
    write_json(directory / "generation_config.json", {"eos_token_id": [502, 500]})
    return directory
