"""Forms of ``tokenizer.json`` that other families have: added words, normalizers, several splits; against Hugging Face's."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.builders import sentences
from helpers.sentencepiece import SCHEMES, write_vocabulary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as TheirTokenizer
from transformers import AutoTokenizer

from model.checkpoint.json_file import read_json, write_json
from model.tokenizer.tokenizer import Tokenizer

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
DEEPSEEK = [  # in the manner of DeepSeek's: one split after another
    pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
    pre_tokenizers.Split(Regex(r"[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
    pre_tokenizers.Split(
        Regex(r"[!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"), "isolated"
    ),
]
WORDS = {
    "plain": [AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)],
    "normalized": [AddedToken("<think>"), AddedToken("pneumothorax"), AddedToken("pneumo")],
    "blanks": [AddedToken("<think>", lstrip=True, normalized=False), AddedToken("</think>", rstrip=True), AddedToken("  ")],
    "whole words": [AddedToken("ARDS", single_word=True), AddedToken("é", single_word=True, normalized=False)],
}
NORMALIZERS: dict[str, Any] = {
    "none": None,
    "empty": normalizers.Sequence([]),
    "NFC": normalizers.NFC(),
    "NFKC": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
}
SPLITS = {
    "one": [pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"), BYTE_LEVEL],
    "several": [*DEEPSEEK, BYTE_LEVEL],
    "digits": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation(),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
}
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=60),
    st.lists(
        st.sampled_from(["<think>", "</think>", " ", "\n", "pneumothorax", "a", "ARDS", "é", "é", "ﬁ", "12345", "发烧", "<|x|>", "▁b"[1:]])
    ).map("".join),
)
relaxed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def byte_level(directory: Path, *, words: str = "plain", normalizer: str = "none", split: str = "one") -> tuple[Tokenizer, Any]:
    tokenizer = TheirTokenizer(models.BPE())
    if NORMALIZERS[normalizer] is not None:
        tokenizer.normalizer = NORMALIZERS[normalizer]
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(SPLITS[split]), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([*(" ".join(pair) for pair in sentences(30)), "a pneumothorax, ARDS"], trainer)
    tokenizer.add_special_tokens(["<|x|>", "<|end|>"])
    tokenizer.add_tokens(WORDS[words])
    source = json.loads(tokenizer.to_str())
    write_json(directory / "tokenizer.json", source)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"})
    return Tokenizer.from_path(directory), AutoTokenizer.from_pretrained(directory)


@pytest.fixture(
    scope="module",
    params=[*({"words": w} for w in WORDS), *({"normalizer": n} for n in NORMALIZERS), *({"split": s} for s in SPLITS)],
    ids=str,
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    return byte_level(tmp_path_factory.mktemp("variant"), **request.param)


@given(text=TEXTS)
@relaxed
def test_byte_level_ids_are_those_of_transformers(pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = pair
    text = text.replace("<|x|>", "<x>").replace("<|end|>", "")  # transformers makes control tokens of text
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode_batch([text]) == [ours.encode(text)]


@given(text=TEXTS)
@relaxed
def test_no_text_becomes_a_control_token(pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, _ = pair
    ids = ours.encode(f"{text}<|x|>{text}<|end|>")
    assert set(ours.special) == {"<|x|>", "<|end|>"} and not set(ids) & set(ours.special.values())


def test_words_are_written_back(tmp_path: Path) -> None:
    ours, _ = byte_level(tmp_path)
    text = "<think>\nNo <think>x</think> 发烧 <|x|>"
    assert ours.decode(ours.encode(text)) == text
    assert [i for i in ours.encode(text) if i in ours.words.values()] == [ours.words[w] for w in ("<think>", "<think>", "</think>")]


def test_merges_that_are_not_in_the_order_of_their_ids_are_done_in_their_own(tmp_path: Path) -> None:
    byte_level(tmp_path)
    source = read_json(tmp_path / "tokenizer.json")
    source["model"]["merges"] = source["model"]["merges"][:40][::-1]
    merged = {"".join(pair) for pair in source["model"]["merges"]}
    assert len(merged) == 40
    write_json(tmp_path / "tokenizer.json", source)
    ours, theirs = Tokenizer.from_path(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for question, answer in sentences(20):
        assert ours.encode(question + answer) == theirs(question + answer, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module", params=[(scheme, words) for scheme in SCHEMES for words in WORDS], ids=str)
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    scheme, words = request.param
    directory = write_vocabulary(tmp_path_factory.mktemp("pieces"), scheme)
    their = TheirTokenizer.from_file(str(directory / "tokenizer.json"))
    # The others are refused.
    their.add_tokens([not_normalized(w) if scheme == "prepend" else w for w in WORDS[words] if len(w.content) > 2])
    their.save(str(directory / "tokenizer.json"))
    return Tokenizer.from_path(directory), AutoTokenizer.from_pretrained(directory)


@given(text=TEXTS)
@relaxed
def test_sentencepiece_ids_are_those_of_transformers(pieces: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = pieces
    assert ours.prompt(text) == theirs(text)["input_ids"]


def not_normalized(word: AddedToken) -> AddedToken:
    return AddedToken(word.content, lstrip=word.lstrip, rstrip=word.rstrip, single_word=word.single_word, normalized=False)


@pytest.mark.parametrize(
    ("scheme", "word"),
    [("prepend", AddedToken("pneumothorax")), ("first", AddedToken(" pneumo")), ("never", AddedToken("é", single_word=True))],
)
def test_words_that_a_blank_would_hide_are_refused(tmp_path: Path, scheme: str, word: AddedToken) -> None:
    write_vocabulary(tmp_path, scheme)
    their = TheirTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    their.add_tokens([word])
    their.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=f"tokenizer.json: the added words '{word.content}' cannot be matched as tokenizers would"):
        Tokenizer.from_path(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Strip"}}, "normalizer 'Strip' is not supported"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend"}]}},
            "normalizer 'Prepend' is not supported",
        ),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "ByteLevel"}]}}, "is not known"),
        ({"added_tokens": [{"id": 1, "special": False}]}, "added_tokens cannot be read"),
    ],
)
def test_what_would_change_or_lose_text_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    byte_level(tmp_path)
    write_json(tmp_path / "tokenizer.json", read_json(tmp_path / "tokenizer.json") | change)
    with pytest.raises(ValueError, match=f"tokenizer.json: .*{message}"):
        Tokenizer.from_path(tmp_path)
