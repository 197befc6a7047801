"""Vocabularies in the form of other families' releases against transformers: Gemma 3's SentencePiece, Qwen's byte-level BPE."""

from pathlib import Path
from typing import Any

import pytest
from helpers.qwen import write_qwen_vocabulary
from helpers.sentencepiece import GEMMA, write_gemma_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from model.tokenizer.tokenizer import Tokenizer

TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=80),
    st.lists(st.sampled_from(["\n", "\n\n", " ", "  ", "▁▁", "fever", "12.5", "<unused0>", "[multimodal]", "<think>", "é", "é", "😀"])).map(
        "".join
    ),
)


@pytest.fixture(scope="module", params=[write_gemma_vocabulary, write_qwen_vocabulary], ids=["gemma", "qwen"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """Ours and transformers' of the same directory."""
    directory = request.param(tmp_path_factory.mktemp("family"))
    return Tokenizer.from_path(directory), AutoTokenizer.from_pretrained(directory)


def _without_controls(text: str, tokenizer: Tokenizer) -> str:
    """transformers makes control tokens of text."""
    for name in tokenizer.special:
        text = text.replace(name, "")
    return text


@given(text=TEXT)
@settings(max_examples=300, deadline=None)
def test_ids_are_those_of_transformers(pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = pair
    text = _without_controls(text, ours)
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.prompt(text) == theirs(text)["input_ids"]


@given(text=TEXT)
@settings(max_examples=100, deadline=None)
def test_no_text_becomes_a_control_token(pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, _ = pair
    assert not set(ours.encode(f"{text}<bos><|im_end|>{text}<end_of_turn>")) & set(ours.special.values())


def test_a_chat_has_the_ids_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    chat = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What are the signs of condition 5? "},
        {"role": "assistant", "content": "Joint pain."},
        {"role": "user", "content": "And of\n\n6?"},
    ]
    for turns in (chat, chat[1:], chat[:2]):
        assert ours.chat_prompt(turns) == theirs.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]


def test_gemmas_template_can_be_trained_with(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_path(write_gemma_vocabulary(tmp_path))
    assert tokenizer.template == GEMMA
    tokenizer.check_chat_template()
    supervised = [piece for piece in tokenizer.compile_chat_template(("user", "assistant")) if piece.supervised]
    assert supervised[-1].control == tokenizer.special["<end_of_turn>"]
