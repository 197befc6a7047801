"""How generated answers look from outside: whether they end, repeat themselves or are empty. What they say is not scored here."""

from collections import Counter
from collections.abc import Iterator, Sequence

from model.tokenizer.tokenizer import Message
from tasks.corpus.documents import Document, share
from tasks.evaluation.decoding import Answer
from tasks.evaluation.probes import Item, Value

MAX_CHARACTERS = 2000  # of a question with its earlier turns
NGRAM = 4


def select(documents: Sequence[Document], *, seed: int, count: int) -> list[Document]:
    """Up to ``count`` documents with a question, in an order that the seed fixes, spread evenly over the categories."""
    by_category: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda d: share(seed, "generation", d.id)):
        if document.question and len(_user_text(document)) <= MAX_CHARACTERS:
            by_category.setdefault(document.category, []).append(document)
    # The first of every category, then the second of every category, and so on.
    chosen = sorted((index, category) for category, of_category in by_category.items() for index in range(len(of_category)))[:count]
    return [by_category[category][index] for category, index in sorted((category, index) for index, category in chosen)]


def values(documents: Sequence[Document], answers: Sequence[Answer], forms: Sequence[Sequence[int]]) -> Iterator[Value]:
    """Whether each answer ends, is empty, and how much of it is repeated.

    ``forms``: ids of a text of the form that was asked for, which may repeat what it repeats; empty for prose.
    """
    for document, answer, form in zip(documents, answers, forms, strict=True):
        item = Item(document.id, document.split, document.category, document.source)
        yield Value("stop", item, 1, float(answer.complete))
        yield Value("empty", item, 1, float(not answer.text.strip()))
        yield Value("repetition", item, 1, repeated_share(answer.ids, form))


def repeated_share(ids: Sequence[int], form: Sequence[int] = ()) -> float:
    """The share of 4-grams of token ids that occurred before, more often than in ``form``; 0 where there are none."""
    ngrams, allowed = _ngrams(ids), _ngrams(form)
    repeated = sum(max(0, count - max(1, allowed[ngram])) for ngram, count in ngrams.items())
    return repeated / ngrams.total() if ngrams else 0.0


def _ngrams(ids: Sequence[int]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[start : start + NGRAM]) for start in range(len(ids) - NGRAM + 1))


def dialog(document: Document) -> list[Message]:
    """The turns that ask a document's question."""
    return [*({"role": role, "content": text} for role, text in document.before), {"role": "user", "content": document.question}]


def _user_text(document: Document) -> str:
    return "".join(text for _, text in (*document.before, ("user", document.question)))
