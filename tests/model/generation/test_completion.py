"""Text in, text out: stop strings, echo, streaming, the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.builders import write_tiny_checkpoint
from helpers.project import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from model.generation.completion import Answer, Llama
from model.tokenizer.tokenizer import TextStream, Tokenizer

PROMPTS = ["What are the signs of condition 3?", "fever", "A much longer prompt that has more than a few tokens: " * 3]


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Path) -> Llama:
    return Llama.build(ckpt_dir=tiny_checkpoint)


def test_the_real_base_model_continues_as_published(smollm2: Path) -> None:
    llama = Llama.build(smollm2, max_seq_len=64)
    (completion,) = llama.text_completion(["The patient was diagnosed with"], max_gen_len=10, temperature=0.0)
    assert completion.text == " a rare genetic disorder that affects the immune system."
    assert completion.finish_reason == "length"


def test_a_stop_string_ends_the_text_before_it(llama: Llama) -> None:
    free = llama.text_completion(PROMPTS, max_gen_len=40, temperature=0.0)
    for position in (3, 17):
        stop = free[0].text[position : position + 5]  # reaches over token borders
        stopped = llama.text_completion(PROMPTS, max_gen_len=40, temperature=0.0, stop=[stop])
        assert stopped[0].text == free[0].text[: free[0].text.index(stop)]
        assert stopped[0].finish_reason == "stop"
        for one, whole in zip(stopped[1:], free[1:], strict=True):
            assert one.text == whole.text.split(stop)[0]


@pytest.mark.slow
@given(text=st.text("ab<|>", max_size=40), stops=st.lists(st.text("ab<|>", min_size=1, max_size=4), max_size=3), cuts=st.data())
@settings(max_examples=300, deadline=None)
def test_however_a_text_is_cut_into_tokens_it_ends_before_the_first_stop_string(
    tiny_checkpoint: Path, text: str, stops: list[str], cuts: st.DataObject
) -> None:
    tokenizer = Tokenizer.from_path(tiny_checkpoint)
    answer, shown = Answer(TextStream(tokenizer), stops), ""
    rest = text
    while rest:
        size = cuts.draw(st.integers(1, len(rest)))
        for token in tokenizer.encode(rest[:size]):
            if not answer.stopped:
                shown += answer.push(token)
        rest = rest[size:]
    shown += answer.finish()
    assert shown == answer.text
    if not any(stop in text for stop in stops):
        assert shown == text and not answer.stopped
    else:
        assert answer.stopped
        assert not any(stop in shown for stop in stops)
        assert any(text[len(shown) :].startswith(stop) for stop in stops)
        assert text.startswith(shown)


def test_streaming_gives_the_text_of_the_whole(llama: Llama) -> None:
    prompt = llama.tokenizer.prompt(PROMPTS[0])
    (whole,) = llama.text_completion(PROMPTS[:1], max_gen_len=30, temperature=1.0, seed=5)
    pieces = list(llama.stream(prompt, max_gen_len=30, temperature=1.0, seed=5))
    assert "".join(text for _, text in pieces) == whole.text
    assert tuple(i for i, _ in pieces if i is not None) == whole.ids


def test_echo_puts_the_prompt_in_front_with_its_log_probabilities(llama: Llama) -> None:
    (echoed,) = llama.text_completion(PROMPTS[:1], max_gen_len=5, temperature=0.0, echo=True, log_probabilities=2)
    (plain,) = llama.text_completion(PROMPTS[:1], max_gen_len=5, temperature=0.0, log_probabilities=2)
    assert echoed.text == PROMPTS[0] + plain.text
    assert echoed.ids == (*llama.tokenizer.prompt(PROMPTS[0]), *plain.ids)
    assert echoed.log_probabilities and plain.log_probabilities
    assert len(echoed.log_probabilities) == len(echoed.ids)
    assert echoed.log_probabilities[0] is None and None not in echoed.log_probabilities[1:]
    assert echoed.log_probabilities[-5:] == plain.log_probabilities


def test_a_conversation_is_answered_through_the_template(llama: Llama) -> None:
    dialog = [{"role": "user", "content": "What are the signs of condition 3?"}]
    (answer,) = llama.chat_completion([dialog], max_gen_len=5, temperature=0.0)
    (same,) = [list(llama.stream(llama.tokenizer.chat_prompt(dialog), max_gen_len=5, temperature=0.0))]
    assert answer.text == "".join(text for _, text in same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, None])
def test_weights_of_any_precision_generate(tiny_checkpoint: Path, dtype: torch.dtype | None) -> None:
    assert Llama.build(tiny_checkpoint, dtype=dtype).text_completion(["fever"], max_gen_len=3)[0].ids


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_fewer_bits_are_asked_for_by_name(kind: str, tiny_checkpoint: Path) -> None:
    assert Llama.build(tiny_checkpoint, quantize=kind).text_completion(["fever"], max_gen_len=3)[0].ids
    with pytest.raises(ValueError, match="not 'int3'"):
        Llama.build(tiny_checkpoint, quantize="int3")


def test_a_vocabulary_larger_than_the_models_is_refused(tiny_checkpoint: Path, smollm2: Path) -> None:
    with pytest.raises(ValueError, match="the tokenizer has 49152 ids, the model in .* only 400"):
        Llama.build(tiny_checkpoint, tokenizer_path=smollm2 / "tokenizer.json")


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (["a", "b"], {}, "2 prompts are more than max_batch_size of 1"),
        ([], {}, "no prompt"),
        ([""], {}, "prompt 0 is empty"),
        ("text", {}, "prompts is one string"),
        (["a"], {"stop": [""]}, "stop string is empty"),
        (["a"], {"top_p": 2.0}, "top_p"),
        (["a"], {"max_gen_len": 0}, "at least 1"),
        (["many words " * 300], {}, "leaves no room"),
    ],
)
def test_impossible_requests_are_refused(tiny_checkpoint: Path, prompts: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Llama.build(tiny_checkpoint, max_batch_size=1).text_completion(prompts, **options)  # type: ignore[arg-type]


class TestTheCommandLine:
    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "model", "generate", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )

    @pytest.mark.slow
    def test_it_streams_a_continuation_and_tells_the_speed(self, tiny_checkpoint: Path, llama: Llama) -> None:
        process = self.run(str(tiny_checkpoint), "--prompt", "fever and", "--max-tokens", "8", "--temperature", "0")
        (expected,) = llama.text_completion(["fever and"], max_gen_len=8, temperature=0.0)
        assert process.returncode == 0, process.stderr
        assert process.stdout == "fever and" + expected.text + "\n"
        assert "written at" in process.stderr and "tokens/s" in process.stderr

    @pytest.mark.slow
    def test_it_takes_every_setting(self, tiny_checkpoint: Path) -> None:
        settings = [
            "--chat",
            "--max-tokens",
            "4",
            "--top-k",
            "5",
            "--min-p",
            "0.1",
            "--repetition-penalty",
            "1.2",
            "--seed",
            "3",
            "--stop",
            "x",
            "--quantize",
            "int8",
        ]
        process = self.run(str(tiny_checkpoint), "--prompt", "fever", "--tokenizer", str(tiny_checkpoint / "tokenizer.json"), *settings)
        assert process.returncode == 0, process.stderr

    @pytest.mark.slow
    def test_bad_input_is_one_line(self, tmp_path: Path) -> None:
        process = self.run(str(tmp_path), "--prompt", "x")
        assert process.returncode == 1
        assert process.stderr.startswith("generate: ") and process.stderr.count("\n") == 1

    @pytest.mark.slow
    def test_a_gguf_file_is_told_how_to_convert(self, tmp_path: Path) -> None:
        (tmp_path / "model.gguf").write_bytes(b"GGUF")
        process = self.run(str(tmp_path / "model.gguf"), "--prompt", "x")
        assert process.returncode == 1 and "python -m model convert" in process.stderr and "Traceback" not in process.stderr

    @pytest.mark.slow
    def test_weights_that_are_not_there_are_told_without_a_traceback(self, tmp_path: Path) -> None:
        directory = write_tiny_checkpoint(tmp_path / "checkpoint")
        (directory / "model.safetensors").unlink()
        process = self.run(str(directory), "--prompt", "x")
        assert process.returncode == 1 and "model.safetensors" in process.stderr and "Traceback" not in process.stderr
