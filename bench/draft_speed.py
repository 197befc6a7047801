"""Extraction with and without drafts on this machine's CPU: the same answers, one note at a time, alternating in one run.

    python -m bench.draft_speed artifacts/model artifacts/documents

The notes are those of the test split, the answers greedy and under the task's schema. The best of the rounds counts for each note. The
last line is one JSON document. Read the ratio, and only from an idle machine.
"""

import argparse
import json
import time
from pathlib import Path

from model.generation.completion import Llama
from model.generation.generate import Batch
from model.generation.grammar import JsonSchema
from tasks.corpus.documents import Document, read_documents
from tasks.corpus.extraction.definitions import read_tasks

ROUNDS, MAX_TOKENS = 3, 160


def answered(llama: Llama, document: Document, schema: JsonSchema | None, *, drafts: bool) -> tuple[list[int], float]:
    """Ids of the answer, and the seconds after the prompt was read."""
    prompt = llama.tokenizer.chat_prompt([{"role": "user", "content": document.question}])
    batch = Batch(llama.model, slots=1, max_len=len(prompt) + MAX_TOKENS, drafts=drafts)
    sequence = batch.add(prompt, form=schema.answer() if schema else None)
    began = time.perf_counter()
    for _ in range(MAX_TOKENS):
        if batch.sample(sequence).id in llama.tokenizer.stop_ids or batch.is_full(sequence):
            break
        batch.step([sequence])
    return sequence.tokens[len(prompt) :], time.perf_counter() - began


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.draft_speed")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--notes", type=int, default=12)
    options = parser.parse_args()
    llama = Llama.build(options.checkpoint)
    tasks = read_tasks(options.documents)
    documents = [document for document in read_documents(options.documents, "test") if document.task][: options.notes]
    results = {}
    for form in ("under the schema", "free"):
        schemas = {name: JsonSchema(task.schema, llama.tokenizer) if form != "free" else None for name, task in tasks.items()}
        best: dict[tuple[str, bool], float] = {}
        tokens, differ = 0, 0
        for number in range(ROUNDS):
            for document in documents:
                answers = []
                for drafts in (True, False):
                    ids, seconds = answered(llama, document, schemas[document.task], drafts=drafts)
                    answers.append(ids)
                    best[document.id, drafts] = min(seconds, best.get((document.id, drafts), seconds))
                differ += answers[0] != answers[1]
                tokens += len(answers[0]) * (number == 0)
        seconds_by = {drafts: sum(seconds for (_, drafted), seconds in best.items() if drafted == drafts) for drafts in (True, False)}
        results[form] = {
            "notes": len(documents),
            "answers that differ": differ,
            "tokens/s with drafts": round(tokens / seconds_by[True], 1),
            "tokens/s without": round(tokens / seconds_by[False], 1),
            "ratio": round(seconds_by[False] / seconds_by[True], 3),
        }
        print(form, results[form])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
