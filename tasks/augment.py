"""Variants of train documents, and general text against forgetting: ``python -m tasks.augment``.

A variant states the same: it keeps its original's group and split, names it as its parent, and holds the same numbers, negations,
sides, directions, drugs and genes, or it is dropped. Nothing is drawn at random: which document gets which variants follows from the
seed and its id.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.corpus.augmentation import abbreviation, lay, paraphrase, spelling, typo
from tasks.corpus.augmentation.invariant import protected
from tasks.corpus.documents import Document, content_id, read_documents, share, write_documents
from tasks.corpus.measures import Facts, read_facts
from tasks.corpus.params import AugmentParams
from tasks.corpus.readers.hpo import lay_synonyms
from tasks.runtime.files import write_whole
from tasks.stage import Out, StageResult, run_stage

EXAMPLES = 5
WORK = Path(".cache/augment")


@dataclass
class Told:
    """Of a method: how often it was tried, made a copy, and what was dropped."""

    tried: int = 0
    made: int = 0
    dropped: int = 0  # as the copy did not state the same
    examples: list[str] = field(default_factory=list)  # ids of originals


Method = Callable[[Document, int, Mapping[str, str]], Document | None]


def augment(data: Path, documents: Path, variants: Out, report: Out, *, params: AugmentParams) -> StageResult:
    """Write the variants of the train split, and what of the split replay is trained on; originals stay where they are."""
    told = {name: Told() for name in METHODS}
    terms = lay.lay_terms(pair for path in sorted(data.rglob("*.obo")) for pair in lay_synonyms(path))
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    counts = Counter[str]()
    with open(WORK / "facts.jsonl", "w", encoding="utf-8") as facts:

        def made() -> Iterator[Document]:
            for document in read_documents(documents, "train"):
                counts["documents"] += 1
                counts["characters"] += sum(map(len, document.texts()))
                for number, copy in enumerate(copies(document, params, terms, told), 1):
                    counts["characters"] += sum(map(len, copy.texts()))
                    facts.write(json.dumps(_facts(document, copy, number)) + "\n")
                    yield copy
            yield from _replayed(documents, counts, params)

        write_documents(made(), variants)
    if sum(t.made for t in told.values()):
        _gate(report)
    shutil.rmtree(WORK)
    table = {name: {"tried": t.tried, "made": t.made, "dropped": t.dropped, "examples": t.examples} for name, t in told.items()}
    report.mkdir(parents=True, exist_ok=True)
    write_whole(report / "augment.json", {"methods": table, "train_documents": counts["documents"], "replayed": counts["replayed"]})
    total = sum(t.made for t in told.values())
    rows = [f"{t.made:,} {name}" for name, t in told.items() if t.made]
    print(f"{total:,} variants of {counts['documents']:,} train documents: {', '.join(rows) or 'none'}; {counts['replayed']:,} replayed")
    metrics = {f"variants_{name}": float(t.made) for name, t in told.items()} | {f"dropped_{n}": float(t.dropped) for n, t in told.items()}
    totals = {"train_documents": float(counts["documents"]), "variants": float(total), "replayed": float(counts["replayed"])}
    return StageResult(metrics=totals | metrics, reports=("report",))


def copies(document: Document, params: AugmentParams, terms: Mapping[str, str], told: Mapping[str, Told]) -> list[Document]:
    """The variants of a document, by the methods whose share it falls in, in an order that is its own."""
    found: list[Document] = []
    for name in sorted(METHODS, key=lambda method: share(params.seed, "order", method, document.id)):
        if len(found) == params.max_copies or share(params.seed, name, document.id) >= getattr(params, name):
            continue
        told[name].tried += 1
        copy = METHODS[name](document, params.seed, terms)
        if copy is None or copy.texts() == document.texts():
            continue
        if not states_the_same(document, copy, name):
            told[name].dropped += 1
            continue
        told[name].made += 1
        told[name].examples = sorted([*told[name].examples, document.id])[:EXAMPLES]
        key = content_id(document.id, name, str(params.seed), *copy.texts())
        found.append(replace(copy, id=key, method=name, parent=document.id))
    return found


def states_the_same(document: Document, copy: Document, method: str) -> bool:
    """Whether a copy holds the same protected words and numbers; abbreviations count as what they are short for."""
    # What is equal in both needs no look.
    differing = [(one, other) for one, other in zip(document.texts(), copy.texts(), strict=True) if one != other]
    texts = ["\n".join(of_one) for of_one in zip(*differing, strict=True)] or ["", ""]
    if method == "abbreviation":
        texts = [abbreviation.without_defined(text, document.answer) for text in texts]
    return protected(texts[0]) == protected(texts[1])


def _paraphrase(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    wordings, topic = paraphrase.wordings(document)
    return replace(document, question=_pick(wordings, seed, "wording", document.id).format(topic=topic)) if wordings and topic else None


def _synonym(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    wordings, topic = paraphrase.wordings(document)
    names = paraphrase.other_names(document)
    if not (wordings and topic and names):
        return None
    name = _pick(tuple(names), seed, "name", document.id)
    return replace(document, question=_pick(wordings, seed, "wording", document.id).format(topic=name), topic=name)


def _lay(document: Document, _: int, terms: Mapping[str, str]) -> Document | None:
    return replace(document, answer=lay.glossed(document.answer, terms))


def _spelling(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    table = spelling.TO_UK if share(seed, "direction", document.id) < 0.5 else spelling.TO_US
    return document.map_texts(lambda text: spelling.respelled(text, table))


def _abbreviation(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    change = abbreviation.expanded if share(seed, "longer", document.id) < 0.5 else abbreviation.shortened
    return replace(document, answer=change(document.answer))


def _typo(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    return replace(document, question=typo.with_typos(document.question, document.topic, seed, document.id)) if document.question else None


METHODS: dict[str, Method] = {
    "paraphrase": _paraphrase,
    "synonym": _synonym,
    "lay": _lay,
    "spelling": _spelling,
    "abbreviation": _abbreviation,
    "typo": _typo,
}


def _replayed(documents: Path, counts: Counter[str], params: AugmentParams) -> Iterator[Document]:
    """General text up to its share of all characters. In the order of ids, which are digests, so it is a sample of all there is."""
    wanted = counts["characters"] * params.replay_share / (1 - params.replay_share)
    taken = 0
    for document in read_documents(documents, "replay"):
        taken += sum(map(len, document.texts()))
        if taken > wanted:
            return
        counts["replayed"] += 1
        yield replace(document, split="train", method="replay")  # with its id: training on it can be told by that


def _facts(document: Document, copy: Document, number: int) -> Facts:
    return {
        "id": copy.id,
        "split": copy.split,
        "method": copy.method or None,
        "without_parent": int(copy.parent != document.id),
        "same_as_parent": int(copy.texts() == document.texts()),
        "other_group": int(copy.group != document.group),
        "changed_facts": int(not states_the_same(document, copy, copy.method)),
        "copies_of_parent": number,
    }


def _gate(report: Path) -> None:
    from tasks.corpus import expectations  # imports Great Expectations, which costs seconds

    gate = expectations.check("augmented-documents", read_facts([WORK / "facts.jsonl"]), expectations.augmented_documents(), WORK, report)
    print(f"gate {gate.name}: {gate.passed} passed" + "".join(f"; warning: {w}" for w in gate.warned), flush=True)
    if gate.failed:
        raise ValueError(f"the variants do not pass the gate: {'; '.join(gate.failed)}")


def _pick(choices: tuple[str, ...], seed: int, purpose: str, key: str) -> str:
    return choices[int(share(seed, purpose, key) * len(choices))]


if __name__ == "__main__":
    run_stage(augment)
