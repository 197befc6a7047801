"""The audit trail: every entry holds the digest of the one before."""

import csv
import io
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.registry import audit, audit_page, hash_chain

NAME = "m"


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_registered_model(NAME)
    return client


def tag(number: int) -> str:
    return f"event.{number:05d}"


def older(client: MlflowClient, count: int) -> None:
    """Entries as they were before they had digests."""
    for number in range(1, count + 1):
        event = {"verb": "promote", "version": number, "who": "a", "when": "2026-01-01T00:00:00+00:00", "why": "b", "commit": None}
        client.set_registered_model_tag(NAME, tag(number), json.dumps(event))


def grow(client: MlflowClient, count: int) -> None:
    for number in range(count):
        audit.append(client, NAME, "promote", str(number + 1), who="Dr. Who, MD", why='said "yes"\nand meant it', evidence="e" * 64)


def problems(client: MlflowClient, *heads: str) -> list[str]:
    texts = audit.texts(client, NAME)
    return [*hash_chain.problems(texts), *hash_chain.lost([texts], heads)]


def head(client: MlflowClient) -> str:
    return hash_chain.sha256(list(audit.texts(client, NAME).values())[-1])


@pytest.mark.parametrize("before", [0, 3])
def test_a_removed_changed_or_reordered_entry_is_named(client: MlflowClient, before: int) -> None:
    older(client, before)
    grow(client, 4)
    assert problems(client) == [] and len(audit.events(client, NAME)) == before + 4
    tags = dict(client.get_registered_model(NAME).tags)
    for number in range(1, before + 4):  # of the last one only its digest can tell
        changed = json.loads(tags[tag(number)]) | {"who": "Mallory"}
        client.set_registered_model_tag(NAME, tag(number), json.dumps(changed))
        assert any("does not follow the one before" in problem for problem in problems(client)), number
        client.delete_registered_model_tag(NAME, tag(number))
        assert f"entry {number} is missing" in problems(client)
        client.set_registered_model_tag(NAME, tag(number), tags[tag(number)])
    first, second = tag(before + 1), tag(before + 2)
    client.set_registered_model_tag(NAME, first, tags[second])
    client.set_registered_model_tag(NAME, second, tags[first])
    assert len(problems(client)) >= 2
    client.set_registered_model_tag(NAME, first, "no JSON")
    assert f"entry {before + 1} is no entry" in problems(client)


def test_a_noted_digest_shows_that_the_end_was_removed(client: MlflowClient) -> None:
    grow(client, 2)
    noted = head(client)
    grow(client, 1)
    assert problems(client, noted) == []
    client.delete_registered_model_tag(NAME, tag(3))
    assert problems(client, noted) == []
    client.delete_registered_model_tag(NAME, tag(2))
    assert problems(client) == [] and problems(client, noted) == [
        f"no entry has the digest {noted}: the end was removed, or the trail was written anew"
    ]


def test_the_table_holds_every_entry(client: MlflowClient) -> None:
    older(client, 1)
    grow(client, 2)
    text = io.StringIO()
    audit.write_csv({"registry": audit.texts(client, NAME)}, text)
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [row["number"] for row in rows] == ["1", "2", "3"] and rows[1]["why"] == 'said "yes"\nand meant it'
    assert rows[2]["previous"] == rows[1]["sha256"] and rows[2]["sha256"] == head(client)


def test_an_empty_trail_has_no_problems(client: MlflowClient) -> None:
    assert problems(client) == [] and audit.events(client, NAME) == []


def test_the_page_says_who_was_champion_when_and_what_is_wrong(client: MlflowClient) -> None:
    grow(client, 2)
    audit.append(client, NAME, "rollback", "2", who="B", why="<script>alert(1)</script>")
    page = audit_page.page(NAME, {"registry": audit.texts(client, NAME), "host.jsonl": {1: "no JSON"}})
    champions = page.partition("<h2>Champions")[2].partition("<h2>")[0]
    versions = [row.partition("<")[0] for row in champions.split("<tr><td>")[1:]]
    assert versions == ["1", "2", "1"] and champions.count('<td class="t">now<') == 1
    assert "3 entries, each follows the one before" in page and "entry 1 is no entry" in page and head(client) in page
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page and "src=" not in page
