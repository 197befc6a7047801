"""Our model as lm-evaluation-harness sees one. It needs the extra ``lm_eval``, so only harness.py imports it, where a task is named."""

from collections.abc import Iterator, Sequence

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from model.generation.completion import Llama
from tasks.evaluation.likelihood import Judged, Reader, Text, judge

MOST_NEW_TOKENS = 256  # where a task does not say; as in the harness's own backends


class Adapter(LM):  # type: ignore[misc]
    """Texts are encoded as the harness's Hugging Face backend encodes them, but that no text becomes a control token."""

    def __init__(self, llama: Llama, reader: Reader):
        super().__init__()
        self._llama = llama
        self._reader = reader
        tokenizer = llama.tokenizer
        # What stands before a text that has nothing before it.
        self._start = tokenizer.special.get(tokenizer.bos, tokenizer.special.get(tokenizer.eos, tokenizer.stop_ids[0]))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of each continuation after its context, and whether it is what greedy decoding gives."""
        judged = self._judged([self._pair(*request.args) for request in requests])
        return [(-float(j.nats.sum()), bool(j.likeliest.all())) for j in judged]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Of whole texts, in windows of the context's length."""
        windows = [list(self._windows(request.args[0])) for request in requests]
        judged = iter(self._judged([window for of_text in windows for window in of_text]))
        return [-sum(float(next(judged).nats.sum()) for _ in of_text) for of_text in windows]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Continuations up to one of the task's stop strings; greedy unless the task samples."""
        return [self._continued(*request.args) for request in requests]

    def _judged(self, texts: Sequence[Text]) -> list[Judged]:
        return judge(self._llama, texts, self._reader, what="scoring items")

    def _pair(self, context: str, continuation: str) -> Text:
        tokenizer = self._llama.tokenizer
        if not context:
            return self._text([self._start], tokenizer.encode(continuation))
        # Blanks at the end of a context belong to the next word's token.
        stem = context.rstrip()
        whole, before = tokenizer.prompt(context + continuation), tokenizer.prompt(stem)
        return self._text(before, whole[len(before) :])

    def _windows(self, text: str) -> Iterator[Text]:
        ids = self._llama.tokenizer.prompt(text)
        length = self._llama.model.config.max_seq_len
        for window in get_rolling_token_windows(token_list=ids, prefix_token=self._start, max_seq_len=length, context_len=1):
            yield self._text(*make_disjoint_window(window))

    def _text(self, context: Sequence[int], continuation: Sequence[int]) -> Text:
        tokens = np.array([*context, *continuation], np.uint32)
        counts = np.zeros(len(tokens), np.uint8)
        counts[len(context) :] = 1
        longest = self._llama.model.config.max_seq_len + 1  # the last token is not read
        return Text(tokens[-longest:], counts[-longest:])

    def _continued(self, context: str, settings: dict[str, object]) -> str:
        until = settings.get("until") or []
        most = next((int(str(settings[name])) for name in ("max_gen_toks", "max_new_tokens") if name in settings), MOST_NEW_TOKENS)
        (completion,) = self._llama.text_completion(
            [context],
            max_gen_len=most,
            stop=[until] if isinstance(until, str) else [str(stop) for stop in until],  # type: ignore[attr-defined]
            temperature=float(str(settings.get("temperature", 0.0))) if settings.get("do_sample") else 0.0,
        )
        return completion.text
