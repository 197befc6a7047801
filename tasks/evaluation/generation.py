"""How generated answers look from outside: whether they end, repeat themselves or are empty. What they say is not scored."""

from collections.abc import Iterator, Sequence

from model.generation.completion import Llama
from model.tokenizer.tokenizer import Message
from tasks.corpus.documents import Document, share
from tasks.evaluation.probes import Item, Value
from tasks.runtime.progress import progress

TOGETHER = 8
LONGEST = 2000  # characters of a question with its earlier turns
GRAM = 4


def asked(documents: Sequence[Document], *, seed: int, count: int) -> list[Document]:
    """So many documents that ask something, where there are as many: as many of each kind as of the others."""
    found: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda d: share(seed, "generation", d.id)):
        if document.question and len(_words(document)) <= LONGEST:
            found.setdefault(document.kind, []).append(document)
    # The first of every kind, then the second of every kind, and so on.
    turns = sorted((place, kind) for kind, of_kind in found.items() for place in range(len(of_kind)))[:count]
    return [found[kind][place] for kind, place in sorted((kind, place) for place, kind in turns)]


def generate(llama: Llama, documents: Sequence[Document], *, max_new_tokens: int, what: str) -> Iterator[Value]:
    """Greedy answers, at most ``max_new_tokens`` long."""
    for start in progress(range(0, len(documents), TOGETHER), unit="batch", what=what):
        some = documents[start : start + TOGETHER]
        completions = llama.chat_completion([_dialog(d) for d in some], max_gen_len=max_new_tokens, temperature=0.0)
        for document, completion in zip(some, completions, strict=True):
            item = Item(document.id, document.split, document.kind, document.source)
            yield Value("stop", item, 1, float(completion.finish_reason == "stop"))
            yield Value("empty", item, 1, float(not completion.text.strip()))
            yield Value("repetition", item, 1, repeated(completion.ids))


def repeated(ids: Sequence[int]) -> float:
    """The share of 4-grams that stood there before."""
    grams = [tuple(ids[at : at + GRAM]) for at in range(len(ids) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _words(document: Document) -> str:
    return "".join(text for _, text in (*document.before, ("user", document.question)))


def _dialog(document: Document) -> list[Message]:
    return [*({"role": role, "content": text} for role, text in document.before), {"role": "user", "content": document.question}]
