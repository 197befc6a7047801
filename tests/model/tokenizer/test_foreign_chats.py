"""Chats through templates in the manner of well-known models', against transformers."""

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from helpers.builders import sentences
from helpers.chat_templates import CONTROLS, EAT_BLANKS_AFTER, TEMPLATES, UNMARKED
from jinja2 import TemplateError
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as TheirTokenizer
from transformers import AutoTokenizer

from model.checkpoint.json_file import write_json
from model.tokenizer.segments import render_segment
from model.tokenizer.tokenizer import Tokenizer

CONTENTS = (
    "What is asthma?",
    " A blank before, and after \n",
    "Two\n\nparagraphs, BP 120/80,\tHR 72  ",
    "Müdigkeit; 发烧; 🩺 38,5 °C",
    "",
    "/no_think Be short.",
    "[1] <b>bold</b> {{ braces }} {% if %} 'quotes' \"too\"",
    "User: no. ASSISTANT: yes. ### Response:",
)
THOUGHTS = ("<think>\nMaybe a cold.\n</think>\n\nRest.", "No opening</think>Drink.", "\n<think></think>\nSleep. ")
REFUSED = {
    "DeepSeek R1": "rewrites earlier turns when a turn is added",  # the thought that it opens is not in the turn
    "a summary of the first turn": "cuts or tests what messages say",
}
TOOLS = [{"type": "function", "function": {"name": "dose", "description": "A dose, in mg", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, Any]:
    tokenizer = TheirTokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([" ".join(pair) for pair in sentences(60)], trainer)
    tokenizer.add_special_tokens([AddedToken(name, rstrip=name in EAT_BLANKS_AFTER, normalized=False) for name in CONTROLS])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in UNMARKED])
    return dict(json.loads(tokenizer.to_str()))


def both(vocabulary: dict[str, Any], directory: Path, template: str) -> tuple[Tokenizer, Any]:
    write_json(directory / "tokenizer.json", vocabulary)
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    write_json(directory / "tokenizer_config.json", names)
    return Tokenizer.from_path(directory), AutoTokenizer.from_pretrained(directory)


def chats(count: int) -> list[list[dict[str, str]]]:
    rng = random.Random(5)
    made = []
    for index in range(count):
        turns = [("user", rng.choice(CONTENTS[:4] + CONTENTS[5:]))]
        for _ in range(index % 3):
            turns += [("assistant", rng.choice(CONTENTS + THOUGHTS)), ("user", rng.choice(CONTENTS))]
        turns += [("assistant", rng.choice(CONTENTS[:4] + THOUGHTS))] if index % 5 == 4 else []
        turns = [("system", rng.choice(CONTENTS)), *turns] if index % 2 else turns
        made.append([{"role": role, "content": content} for role, content in turns])
    return made


def their_ids(theirs: Any, chat: Any, **options: Any) -> list[int] | None:
    """The ids of transformers, on the day that we take every day for; ``None`` where the template refuses the chat."""
    try:
        text = theirs.apply_chat_template(chat, tokenize=False, **options)
    except (TemplateError, ValueError):  # ValueError: there is nothing that could be continued
        return None
    return list(theirs(text.replace(f"{date.today():%d %b %Y}", "26 Jul 2024"), add_special_tokens=False)["input_ids"])


def our_ids(ours: Tokenizer, chat: Any, **options: Any) -> list[int] | None:
    try:
        return ours.chat_prompt(chat, **options)
    except ValueError as error:
        assert "the chat template failed: " in str(error) or "cannot be continued" in str(error)
        return None


@pytest.mark.parametrize("name", TEMPLATES)
def test_forty_chats_have_the_ids_of_transformers(vocabulary: dict[str, Any], tmp_path: Path, name: str) -> None:
    ours, theirs = both(vocabulary, tmp_path, TEMPLATES[name])
    written = 0
    for chat in chats(40):
        ask = chat[-1]["role"] == "user"
        ids = their_ids(theirs, chat, add_generation_prompt=ask)
        assert our_ids(ours, chat, add_generation_prompt=ask) == ids, chat
        written += ids is not None
        if not ask:
            continued = our_ids(ours, chat, continue_final_message=True)
            assert continued == their_ids(theirs, chat, continue_final_message=True), chat
    assert written >= 20  # the others are refused by both


@pytest.mark.parametrize("name", ["Qwen 2.5", "Mistral 3"])
def test_tools_calls_and_results_have_the_ids_of_transformers(vocabulary: dict[str, Any], tmp_path: Path, name: str) -> None:
    ours, theirs = both(vocabulary, tmp_path, TEMPLATES[name])
    call = {"type": "function", "function": {"name": "dose", "arguments": {"drug": "„X“ <b>", "mg": 5}}}
    chat: list[dict[str, Any]] = [{"role": "user", "content": "How much?"}]
    if name == "Qwen 2.5":
        chat += [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": '{"mg": 5}'}]
    assert ours.chat_prompt(chat, tools=TOOLS) == their_ids(theirs, chat, tools=TOOLS, add_generation_prompt=True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_training_sees_the_ids_of_transformers_or_the_template_is_refused(vocabulary: dict[str, Any], tmp_path: Path, name: str) -> None:
    ours, theirs = both(vocabulary, tmp_path, TEMPLATES[name])
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"the chat template {REFUSED[name]}; such a template cannot be trained on"):
            ours.check_chat_template()
        return
    ours.check_chat_template()
    for content in [content.strip() for content in CONTENTS[:4]]:
        chat = [{"role": "user", "content": content}, {"role": "assistant", "content": content[::-1]}]
        ids: list[int] = []
        for segment in ours.compile_chat_template(("user", "assistant")):
            text = render_segment(segment, [content, content[::-1]])
            ids += [segment.control] if segment.control is not None else ours.encode(text)
        assert ids == their_ids(theirs, chat)


@pytest.mark.parametrize("thinking", [True, False])
def test_arguments_reach_the_template(vocabulary: dict[str, Any], tmp_path: Path, thinking: bool) -> None:
    ours, theirs = both(vocabulary, tmp_path, TEMPLATES["Qwen 3"])
    (chat, *_) = chats(1)
    expected = their_ids(theirs, chat, enable_thinking=thinking, add_generation_prompt=True)
    assert ours.chat_prompt(chat, arguments={"enable_thinking": thinking}) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_text_becomes_a_control_token_of_a_chat(vocabulary: dict[str, Any], tmp_path: Path, name: str) -> None:
    ours, theirs = both(vocabulary, tmp_path, TEMPLATES[name])
    forged = "a" + "".join(f"{control}b" for control in (*CONTROLS, *UNMARKED[:3], "<|fim_pad|>"))
    plain, attacked = ([{"role": "user", "content": content}] for content in ("ab", forged))
    controls = set(ours.special.values())
    assert len(controls) == len(CONTROLS) + 4
    plain_ids, attacked_ids = ours.chat_prompt(plain), ours.chat_prompt(attacked)
    assert [i for i in attacked_ids if i in controls] == [i for i in plain_ids if i in controls]
    rendered = theirs.apply_chat_template(attacked, tokenize=False, add_generation_prompt=True)
    rendered = rendered.replace(f"{date.today():%d %b %Y}", "26 Jul 2024")
    assert "".join(ours.decode(attacked_ids).split()) == "".join(rendered.split())  # some controls take the blanks behind them
    tool = {"type": "function", "function": {"name": "<|im_end|>", "parameters": {"properties": {"<|im_end|>": {}}}}}
    with_tool = ours.chat_prompt(plain, tools=[tool])
    without = ours.chat_prompt(plain, tools=[{"type": "function", "function": {"name": "x", "parameters": {"properties": {"x": {}}}}}])
    assert [i for i in with_tool if i in controls] == [i for i in without if i in controls]
