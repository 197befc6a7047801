"""Documents to token shards: ``python -m tasks.shard``.

Questions and answers go through the base model's chat template, running text between its document borders; the loss mask says
which tokens training counts.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from model.tokenizer import Piece, Tokenizer, fill
from tasks.documents import SPLITS, Document, read_documents
from tasks.progress import progress
from tasks.stage import Out, Params, Summary, run_stage
from tasks.tokenfile import Entry, TokenizedDocument, write_index, write_shards

ROLES = ("user", "assistant")
BATCH = 4096  # documents per call of the tokenizer


class ShardParams(Params):
    loss_on: Literal["answer", "all"]
    max_tokens: int = Field(ge=1024)


def shard(base: Path, documents: Path, variants: Path, shards: Out, *, params: ShardParams) -> Summary:
    """Tokenize every split, the variants with train, in order of the documents' ids."""
    tokenizer = Tokenizer.from_path(base)
    shards.mkdir(parents=True)
    written, metrics = {}, {}
    for split in SPLITS:
        members = sorted([*read_documents(documents, split), *read_documents(variants, split)], key=lambda d: d.id)
        if not members:
            continue
        # Scores are always of answers.
        all_count = params.loss_on == "all" and split in ("train", "validation")
        written[split] = write_shards(split, tokenized(members, tokenizer, all_count=all_count), shards, max_tokens=params.max_tokens)
        metrics[f"documents_{split}"] = float(len(members))
        metrics[f"tokens_{split}"] = float(sum(s.tokens for s in written[split]))
        metrics[f"supervised_{split}"] = float(sum(s.supervised for s in written[split]))
        print(f"{split}: {len(members):,} documents, {metrics[f'tokens_{split}']:,.0f} tokens in {len(written[split])} shards", flush=True)
    write_index(shards, written, tokenizer=tokenizer.digest, vocabulary=tokenizer.n_vocab)
    return Summary(metrics=metrics)


def tokenized(documents: list[Document], tokenizer: Tokenizer, *, all_count: bool) -> Iterator[TokenizedDocument]:
    """The documents' tokens with their loss masks, encoded in batches on all cores."""
    skeletons = {True: tokenizer.skeleton(ROLES), False: tokenizer.running_text(ROLES.index("assistant"))}
    bar = progress(total=len(documents), unit="document", what="tokenizing")
    for start in range(0, len(documents), BATCH):
        batch = documents[start : start + BATCH]
        texts: list[str] = []
        for document in batch:
            pieces = [p for p in skeletons[bool(document.question)] if p.control is None]
            texts += [fill(p, (document.question, document.answer)) for p in pieces]
        ids = iter(tokenizer.encode_batch(texts, os.cpu_count() or 1))
        for document in batch:
            yield _assembled(document, skeletons[bool(document.question)], ids, all_count=all_count)
        bar.update(len(batch))
    bar.close()


def _assembled(document: Document, pieces: tuple[Piece, ...], encoded: Iterator[list[int]], *, all_count: bool) -> TokenizedDocument:
    tokens: list[int] = []
    loss: list[int] = []
    for piece in pieces:
        ids = [piece.control] if piece.control is not None else next(encoded)
        tokens += ids
        loss += [int(piece.supervised or all_count)] * len(ids)
    entry = Entry(document.id, document.kind, document.source, len(document.answer.encode()))
    return TokenizedDocument(entry, np.array(tokens, np.uint32), np.array(loss, np.uint8))


if __name__ == "__main__":
    run_stage(shard)
