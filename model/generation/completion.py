"""Text in, text out: a checkpoint's model with its tokenizer and chat template.

It does not know how tokens are computed; generate.py does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict, Unpack

import torch

from model.checkpoint.load import load_model, open_tensors, weights_dtype
from model.generation import compiled, quantize
from model.generation.adapters import Adapter, read_adapter
from model.generation.generate import Token, generate, prompt_log_probabilities
from model.generation.grammar import JsonSchema
from model.generation.sampling import LogProbability, Sampling
from model.llama import Transformer
from model.tokenizer.tokenizer import Message, TextStream, Tokenizer


class SamplingOptions(TypedDict, total=False):
    """The fields of ``Sampling``, as keyword arguments."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: tuple[tuple[int, float], ...]
    seed: int | None


@dataclass(frozen=True)
class Completion:
    """A generated text, its ids, why it ended, and on request the log-probability of each id.

    With ``echo`` all of them begin with the prompt's; its first token has no log-probability.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: str  # "stop": a stop id or string; "length": the limit or the context
    log_probabilities: tuple[LogProbability | None, ...] | None = None


class Answer:
    """Decodes a sequence token by token and cuts its text before the first stop string.

    A stop string may span tokens, so text that could begin one is not released until it is certain.
    """

    def __init__(self, stream: TextStream, stops: Sequence[str]):
        self.text = ""
        self.stopped = False
        self._stream = stream
        self._stops = tuple(stops)
        self._pending = ""

    def push(self, token: int) -> str:
        """The text that becomes certain with this token; may be empty."""
        return self._release(self._stream.push(token), at_end=False)

    def finish(self) -> str:
        """The text that was not released yet, at the end of the sequence."""
        return self._release(self._stream.finish(), at_end=True)

    def _release(self, text: str, *, at_end: bool) -> str:
        if self.stopped:
            return ""
        self._pending += text
        stop_positions = [at for stop in self._stops if (at := self._pending.find(stop)) >= 0]
        self.stopped = bool(stop_positions)
        end = min(stop_positions) if stop_positions else len(self._pending) - (0 if at_end else self._possible_stop_length())
        released, self._pending = self._pending[:end], "" if stop_positions else self._pending[end:]
        self.text += released
        return released

    def _possible_stop_length(self) -> int:
        """Length of the longest end of the pending text that begins a stop string."""
        return max((n for stop in self._stops for n in range(1, len(stop)) if self._pending.endswith(stop[:n])), default=0)


class Llama:
    """A model with its tokenizer, ready to complete text."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        max_batch_size: int = 8,
        adapters: Mapping[str, Adapter] = MappingProxyType({}),
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch_size = max_batch_size
        self.adapters = dict(adapters)

    @classmethod
    def build(
        cls,
        ckpt_dir: str | Path,
        *,
        tokenizer_path: str | Path | None = None,
        max_seq_len: int | None = None,
        max_batch_size: int = 8,
        dtype: torch.dtype | None = None,
        quantize: str | None = None,
        weights_sha256: Mapping[str, str] | None = None,
        adapters: Mapping[str, str | Path] = MappingProxyType({}),
    ) -> "Llama":
        """Open a checkpoint directory.

        ``tokenizer_path``: a directory, a ``tokenizer.json`` or Llama 3's tiktoken BPE file; default: the checkpoint's own.
        ``max_seq_len`` may shorten the context. ``dtype`` is the weights' precision, by default the stored one; ``quantize``
        may be "int8" or "int4". On the CPU activations are float32 (see quantize.py). ``weights_sha256``: the digests that the weight files
        must have, by file name. ``adapters``: directories in PEFT's format by the names that requests choose them by. ``ValueError``
        names the file and field that do not fit.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        directory = Path(ckpt_dir)
        if weights_sha256 is None:
            open_tensors(directory)  # raises early where there is no valid checkpoint
        tokenizer = Tokenizer.from_path(Path(tokenizer_path or ckpt_dir))
        model = _open(directory, device, dtype, quantize, max_seq_len, weights_sha256)
        if tokenizer.n_vocab > model.config.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.n_vocab} ids, the model in {ckpt_dir} only {model.config.vocab_size}")
        loaded = {name: read_adapter(Path(adapter), model) for name, adapter in adapters.items()}
        return cls(model, tokenizer, max_batch_size=max_batch_size, adapters=loaded)

    def text_completion(
        self,
        prompts: Sequence[str],
        *,
        max_gen_len: int = 64,
        stop: Sequence[str] = (),
        log_probabilities: int | None = None,
        echo: bool = False,
        adapter: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]:
        """Continuations of plain text; ``log_probabilities`` is the number of alternatives to report for each token.

        ``adapter``: the name of the one that answers. ``ValueError`` for a name that is unknown, more than ``max_batch_size`` prompts, an
        empty stop string or a prompt that fills the context.
        """
        if isinstance(prompts, str):
            raise ValueError("prompts is one string; give a list of prompts")
        ids = [self.tokenizer.prompt(p) for p in prompts]
        return self._complete(ids, max_gen_len, stop, log_probabilities, echo, sampling, adapter=adapter)

    def chat_completion(
        self,
        dialogs: Sequence[Sequence[Message]],
        *,
        max_gen_len: int = 256,
        stop: Sequence[str] = (),
        log_probabilities: int | None = None,
        json_schema: Mapping[str, Any] | None = None,
        grounded: bool = False,
        adapter: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]:
        """Answers to conversations, through the checkpoint's chat template. Arguments and errors as of ``text_completion``.

        With a ``json_schema`` an answer that ends by itself is JSON that fits it; with ``grounded`` its numbers and strings also stand in
        the user's messages (grounding.py). ``ValueError`` for a schema that cannot be demanded.
        """
        prompts = [self.tokenizer.chat_prompt(d) for d in dialogs]
        schema = self._schemas(dialogs, json_schema, grounded=grounded)
        return self._complete(prompts, max_gen_len, stop, log_probabilities, False, sampling, schema, adapter)

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_gen_len: int,
        stop: Sequence[str] = (),
        adapter: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[tuple[int | None, str]]:
        """Ids of one continuation, each with the text that became certain; at the end the rest of the text with None."""
        answer = self._answer(stop)
        for (token,) in self._generate([prompt], [answer], max_gen_len, None, sampling, adapter=adapter):
            assert token is not None
            yield token.id, answer.push(token.id)
        yield None, answer.finish()

    def _complete(
        self,
        prompts: list[list[int]],
        max_gen_len: int,
        stop: Sequence[str],
        top: int | None,
        echo: bool,
        sampling: SamplingOptions,
        schema: Sequence[JsonSchema] | None = None,
        adapter: str | None = None,
    ) -> list[Completion]:
        if len(prompts) > self.max_batch_size:
            raise ValueError(f"{len(prompts)} prompts are more than max_batch_size of {self.max_batch_size}")
        answers = [self._answer(stop) for _ in prompts]
        rows: list[list[int]] = [[] for _ in prompts]
        log_probs: list[list[LogProbability | None]] = [[] for _ in prompts]
        for step in self._generate(prompts, answers, max_gen_len, top, sampling, schema, adapter):
            for index, token in enumerate(step):
                if token is not None:
                    rows[index].append(token.id)
                    log_probs[index].append(token.log_probability)
                    answers[index].push(token.id)
        completions = []
        for prompt, answer, ids, values in zip(prompts, answers, rows, log_probs, strict=True):
            answer.finish()
            room = min(max_gen_len, self.model.config.max_seq_len - len(prompt) + 1)
            finish_reason = "length" if len(ids) >= room and not answer.stopped else "stop"
            completion = Completion(answer.text, tuple(ids), finish_reason, None if top is None else tuple(values))
            completions.append(self._echoed(prompt, completion, top, adapter) if echo else completion)
        return completions

    def _schemas(
        self, dialogs: Sequence[Sequence[Message]], json_schema: Mapping[str, Any] | None, *, grounded: bool
    ) -> list[JsonSchema] | None:
        """What each answer must fit; None: it may be any text."""
        if json_schema is None:
            if grounded:
                raise ValueError("grounded needs a json_schema")
            return None
        if not grounded:
            return [JsonSchema(json_schema, self.tokenizer)] * len(dialogs)
        return [JsonSchema(json_schema, self.tokenizer, grounded_in=users_text(dialog)) for dialog in dialogs]

    def _echoed(self, prompt: list[int], completion: Completion, top: int | None, adapter: str | None) -> Completion:
        log_probs = None
        if top is not None and completion.log_probabilities is not None:
            prompt_log_probs = prompt_log_probabilities(self.model, prompt, top, self._adapter(adapter))
            log_probs = (*prompt_log_probs, *completion.log_probabilities)
        text = self.tokenizer.decode(prompt[len(self.tokenizer.prefix) :]) + completion.text
        return Completion(text, (*prompt, *completion.ids), completion.finish_reason, log_probs)

    def _answer(self, stop: Sequence[str]) -> Answer:
        if "" in stop:
            raise ValueError("a stop string is empty")
        return Answer(TextStream(self.tokenizer), stop)

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        answers: list[Answer],
        max_gen_len: int,
        top: int | None,
        sampling: SamplingOptions,
        schema: Sequence[JsonSchema] | None = None,
        adapter: str | None = None,
    ) -> Iterator[list[Token | None]]:
        return generate(
            self.model,
            prompts,
            Sampling(**sampling),
            max_new_tokens=max_gen_len,
            stop_ids=self.tokenizer.stop_ids,
            stop=lambda index, token: answers[index].stopped,
            log_probabilities=top,
            schema=schema,
            adapter=self._adapter(adapter),
        )

    def _adapter(self, name: str | None) -> Adapter | None:
        if name is not None and name not in self.adapters:
            raise ValueError(f"there is no adapter {name!r}; there are: {', '.join(self.adapters) or 'none'}")
        return None if name is None else self.adapters[name]


def users_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """What a user says in a conversation, in which the values of a grounded answer stand."""
    return "\n".join(str(message["content"]) for message in messages if message["role"] == "user")


def _open(
    directory: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    quantization: str | None,
    max_seq_len: int | None,
    sha256: Mapping[str, str] | None,
) -> Transformer:
    """The model in the form that generates fastest on the device."""
    if dtype is None:
        dtype = weights_dtype(directory)
    weight_dtype = quantization or ("bfloat16" if dtype == torch.bfloat16 else None)
    if device.type != "cpu":
        model = load_model(directory, dtype=dtype, device=device, max_seq_len=max_seq_len, sha256=sha256)
        return quantize.quantize_(model, quantization) if quantization else model
    if isinstance(compiled.library(), str) and not quantization:
        weight_dtype = None  # torch alone would convert bfloat16 weights at every step
    model = load_model(directory, dtype=torch.bfloat16 if weight_dtype else torch.float32, max_seq_len=max_seq_len, sha256=sha256)
    return quantize.quantize_(model, weight_dtype) if weight_dtype else model
