"""How generated answers look from outside: whether they end, repeat themselves or are empty. What they say is not scored."""

from collections.abc import Iterator, Sequence

from model.generation.completion import Llama
from model.tokenizer.tokenizer import Message
from tasks.corpus.documents import Document, share
from tasks.evaluation.probes import Item, Value
from tasks.runtime.progress import progress

BATCH_SIZE = 8
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


def generate(llama: Llama, documents: Sequence[Document], *, max_new_tokens: int, label: str) -> Iterator[Value]:
    """Whether each greedy answer of at most ``max_new_tokens`` tokens ends, is empty, and how much of it is repeated.

    ``label`` names the progress bar.
    """
    for start in progress(range(0, len(documents), BATCH_SIZE), unit="batches", desc=label):
        batch = documents[start : start + BATCH_SIZE]
        completions = llama.chat_completion([_dialog(d) for d in batch], max_gen_len=max_new_tokens, temperature=0.0)
        for document, completion in zip(batch, completions, strict=True):
            item = Item(document.id, document.split, document.category, document.source)
            yield Value("stop", item, 1, float(completion.finish_reason == "stop"))
            yield Value("empty", item, 1, float(not completion.text.strip()))
            yield Value("repetition", item, 1, repeated_share(completion.ids))


def repeated_share(ids: Sequence[int]) -> float:
    """The share of 4-grams of token ids that occurred before; 0 where there are none."""
    ngrams = [tuple(ids[start : start + NGRAM]) for start in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _user_text(document: Document) -> str:
    return "".join(text for _, text in (*document.before, ("user", document.question)))


def _dialog(document: Document) -> list[Message]:
    return [*({"role": role, "content": text} for role, text in document.before), {"role": "user", "content": document.question}]
