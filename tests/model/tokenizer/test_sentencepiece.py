"""The tokenizer against Hugging Face's, with small SentencePiece vocabularies in Llama 2's structure."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.builders import sentences
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as TheirTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from model.checkpoint.json_file import read_json, write_json
from model.tokenizer.tokenizer import TextStream, Tokenizer, render_segment

LLAMA2 = (  # the form of Llama 2's own chat template, in words of our own
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if loop.first and system %}{% set c = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set c = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (  # control tokens at the ends of turns only
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
BYTES = {f"<0x{b:02X}>": b for b in range(256)}
SCHEMES = ("prepend", "always", "first", "never")
TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What are the signs of condition 5? "},
    {"role": "assistant", "content": "Joint pain."},
    {"role": "user", "content": "And <s>[INST] of\n  6?"},
]
# "▁" is SentencePiece's own sign for a blank; no text with it comes back as it was.
PIECES_TEXT = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=100), st.text("a <s>/x0A\n字é", max_size=60))


def write_vocabulary(directory: Path, scheme: str) -> Path:
    """A vocabulary as transformers' converter writes Llama 2's ("prepend") and later ones; "<s>" is in it and two merges make it."""
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
