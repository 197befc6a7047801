"""Our model as lm-evaluation-harness sees one. It needs the extra ``lm_eval``: only harness.py imports it, where a task is named."""

from collections.abc import Iterator, Sequence

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from model.generation.completion import Llama
from tasks.evaluation.likelihood import ScoringConfig, Text, TokenScores, score_tokens

MAX_NEW_TOKENS = 256  # where a task does not say; as in the harness's own backends


class Adapter(LM):  # type: ignore[misc]
    """Texts are encoded as in the harness's Hugging Face backend, except that no text becomes a control token."""

    def __init__(self, llama: Llama, config: ScoringConfig):
        super().__init__()
        self._llama = llama
        self._scoring = config
        tokenizer = llama.tokenizer
        # The context of a text that has none.
        self._start = tokenizer.special.get(tokenizer.bos, tokenizer.special.get(tokenizer.eos, tokenizer.stop_ids[0]))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, and whether greedy decoding gives it."""
        scores = self._score([self._pair(*request.args) for request in requests])
        return [(-float(j.nll.sum()), bool(j.is_greedy.all())) for j in scores]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-likelihood of whole texts, in windows of the context's length."""
        windows = [list(self._windows(request.args[0])) for request in requests]
        scores = iter(self._score([window for of_text in windows for window in of_text]))
        return [-sum(float(next(scores).nll.sum()) for _ in of_text) for of_text in windows]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Continuations up to one of the task's stop strings; greedy unless the task samples."""
        return [self._continued(*request.args) for request in requests]

    def _score(self, texts: Sequence[Text]) -> list[TokenScores]:
        return score_tokens(self._llama, texts, self._scoring, label="scoring items")

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
        loss_mask = np.zeros(len(tokens), np.uint8)
        loss_mask[len(context) :] = 1
        max_tokens = self._llama.model.config.max_seq_len + 1  # the last token is only predicted
        return Text(tokens[-max_tokens:], loss_mask[-max_tokens:])

    def _continued(self, context: str, settings: dict[str, object]) -> str:
        until = settings.get("until") or []
        max_new_tokens = next((int(str(settings[name])) for name in ("max_gen_toks", "max_new_tokens") if name in settings), MAX_NEW_TOKENS)
        (completion,) = self._llama.text_completion(
            [context],
            max_gen_len=max_new_tokens,
            stop=[until] if isinstance(until, str) else [str(stop) for stop in until],  # type: ignore[attr-defined]
            temperature=float(str(settings.get("temperature", 0.0))) if settings.get("do_sample") else 0.0,
        )
        return completion.text
