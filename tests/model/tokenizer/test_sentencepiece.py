"""The tokenizer against Hugging Face's, with small SentencePiece vocabularies in Llama 2's structure."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.sentencepiece import BYTES, LLAMA2, SCHEMES, write_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as TheirTokenizer
from transformers import AutoTokenizer

from model.checkpoint.json_file import read_json, write_json
from model.tokenizer.segments import render_segment
from model.tokenizer.tokenizer import TextStream, Tokenizer

ZEPHYR = (  # control tokens at the ends of turns only
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What are the signs of condition 5? "},
    {"role": "assistant", "content": "Joint pain."},
    {"role": "user", "content": "And <s>[INST] of\n  6?"},
]
# "▁" is SentencePiece's own sign for a blank; no text with it comes back as it was.
PIECES_TEXT = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=100), st.text("a <s>/x0A\n字é", max_size=60))


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return Tokenizer.from_path(smollm2)


@pytest.fixture(scope="module", params=SCHEMES)
def pieces_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def pieces(pieces_directory: Path) -> Tokenizer:
    return Tokenizer.from_path(pieces_directory)


@pytest.fixture(scope="module")
def their_pieces(pieces_directory: Path) -> Any:
    return AutoTokenizer.from_pretrained(pieces_directory)


@pytest.fixture(scope="module")
def bare(pieces_directory: Path) -> TheirTokenizer:
    """Hugging Face's tokenizer of the file without what makes control tokens of text."""
    source = read_json(pieces_directory / "tokenizer.json") | {"added_tokens": [], "post_processor": None}
    source["model"]["merges"].remove(["<s", ">"])
    return TheirTokenizer.from_str(json.dumps(source))


@given(text=PIECES_TEXT)
@settings(max_examples=300, deadline=None)
def test_a_sentencepiece_prompt_has_hugging_faces_ids(pieces: Tokenizer, bare: TheirTokenizer, text: str) -> None:
    assert pieces.prompt(text) == [1, *bare.encode(text).ids]


@given(text=PIECES_TEXT)
@settings(max_examples=300, deadline=None)
def test_sentencepiece_text_decodes_to_its_bytes(pieces: Tokenizer, text: str) -> None:
    ids = pieces.encode(text)
    assert pieces.decode_bytes(ids) == text.encode()
    stream = TextStream(pieces)
    assert "".join(stream.push(i) for i in ids) + stream.finish() == text == pieces.decode(ids)
    assert pieces.encode_batch([text, "x"]) == [ids, pieces.encode("x")]


def test_a_sentencepiece_prompt_is_that_of_transformers(pieces: Tokenizer, their_pieces: Any) -> None:
    for text in ("", "The signs", " two blanks  here", "\n"):
        assert pieces.prompt(text) == their_pieces(text)["input_ids"]


def test_ids_that_pad_a_models_matrices_have_no_text(tokenizer: Tokenizer, pieces: Tokenizer) -> None:
    for each in (tokenizer, pieces):
        padded = [*each.encode("fever"), *range(each.n_vocab, each.n_vocab + 300)]
        assert each.decode_bytes(padded) == b"fever"


def test_sentencepiece_text_never_becomes_a_control_token(pieces: Tokenizer) -> None:
    for text in ("<s>", "</s>", "<unk>", "a<s>b </s>", "▁<s>", "<s><s>"):
        assert not {0, 1, 2} & set(pieces.encode(text)), text
        assert not {0, 1, 2} & set(pieces.prompt(text)[1:]), text


@pytest.mark.parametrize("template", [LLAMA2, ZEPHYR], ids=["llama 2", "zephyr"])
def test_a_sentencepiece_chat_has_the_ids_of_transformers(pieces_directory: Path, tmp_path: Path, template: str) -> None:
    write_json(tmp_path / "tokenizer.json", read_json(pieces_directory / "tokenizer.json"))
    write_json(tmp_path / "tokenizer_config.json", read_json(pieces_directory / "tokenizer_config.json") | {"chat_template": template})
    pieces: Tokenizer = Tokenizer.from_path(tmp_path)
    their_pieces: Any = AutoTokenizer.from_pretrained(tmp_path)
    chat = [*TURNS[:3], {"role": "user", "content": "And of\n  6?"}]  # transformers makes control tokens of text
    assert pieces.chat_prompt(chat) == their_pieces.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    controls = [i for i in pieces.chat_prompt(TURNS) if i < 3]
    assert controls == [i for i in pieces.chat_prompt(chat) if i < 3]


def test_sentencepiece_training_sees_the_ids_of_transformers(pieces: Tokenizer, their_pieces: Any) -> None:
    ids: list[int] = []
    for piece in pieces.compile_chat_template(tuple(m["role"] for m in TURNS[:3])):
        ids += [piece.control] if piece.control is not None else pieces.encode(render_segment(piece, [m["content"] for m in TURNS[:3]]))
    assert ids == their_pieces.apply_chat_template(TURNS[:3])["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("character", ["a", " ", "字"])
@pytest.mark.timeout(120)  # minutes would be quadratic time
def test_a_million_unbroken_characters_are_encoded_by_sentencepiece(tmp_path: Path, character: str) -> None:
    pieces = Tokenizer.from_path(write_vocabulary(tmp_path, "prepend"))
    text = character * 1_000_000
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "normalizer .*NFKC.* is not one of Llama 2's"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer .*Whitespace.* is not one of Llama 2's"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}, "merges": []}}, "lacks the bytes <0x00>, <0x01>"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": BYTES, "merges": [["a", "b"]]}}, "is not whole"),
    ],
)
def test_another_sentencepiece_structure_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_vocabulary(tmp_path, "first") / "tokenizer.json"
    write_json(path, read_json(path) | change)
    with pytest.raises(ValueError, match=f"tokenizer.json:? .*{message}"):
        Tokenizer.from_path(tmp_path)


def test_a_sentencepiece_file_alone_is_refused(tmp_path: Path) -> None:
    # How such a file begins: a protobuf of pieces with float scores, and scores of control pieces are 0.
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x0c\n\x03<s>\x15\x00\x00\x00\x00\x18\x03")
    with pytest.raises(ValueError, match="SentencePiece model, which cannot be read; put the tokenizer.json"):
        Tokenizer.from_path(tmp_path)
