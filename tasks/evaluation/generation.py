"""How generated answers look from outside: whether they end, repeat themselves or are empty. What they say is not scored."""

from collections.abc import Iterator, Sequence

from model.completion import Llama
from model.tokenizer import Message
from tasks.documents import Document, share
from tasks.evaluation.probes import Item, Value
from tasks.progress import progress

TOGETHER = 8
LONGEST = 2000  # characters of a question with its earlier turns
GRAM = 4


def asked(documents: Sequence[Document], *, seed: int, per_kind: int) -> list[Document]:
    """Up to ``per_kind`` documents of each kind that ask something."""
    found: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda d: share(seed, "generation", d.id)):
        of_kind = found.setdefault(document.kind, [])
        if document.question and len(_words(document)) <= LONGEST and len(of_kind) < per_kind:
            of_kind.append(document)
    return [document for kind in sorted(found) for document in found[kind]]


def generate(llama: Llama, documents: Sequence[Document], *, max_new_tokens: int, what: str) -> Iterator[Value]:
    """Greedy answers, at most ``max_new_tokens`` long."""
    for start in progress(range(0, len(documents), TOGETHER), unit="batch", what=what):
        some = documents[start : start + TOGETHER]
        completions = llama.chat_completion([_dialog(d) for d in some], max_gen_len=max_new_tokens, temperature=0.0)
        for document, completion in zip(some, completions, strict=True):
            item = Item(document.id, document.split, document.kind, document.source)
            yield Value("stop", item, 1, float(completion.ended_by == "stop"))
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
