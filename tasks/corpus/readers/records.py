"""What every reader needs: options, and the step from fields of a record to a Document."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import Field, field_validator

from tasks.corpus.deidentify.policy import KNOWN_BY
from tasks.corpus.documents import SPLITS, Document, Rejected, Skipped, content_id
from tasks.runtime.params import Params

# pandas, spreadsheets, R and databases (\N) write these where there is no value.
EMPTY = frozenset({"", "nan", "n/a", "#n/a", "na", "null", "none", "\\n"})
# Characters of one record. A book has 1 to 5 million; a reader takes up to 20 times a record's size in memory.
MAX_RECORD = 1 << 25
TOO_LONG = f"is a record of more than {MAX_RECORD >> 20} million characters, the most that are read"
FILE = "file"  # the position of what is wrong with a whole file
FIELDS = ("question", "answer", "text", "split", "group", "topic", "id", "messages")
# Fields that only a known layout has, by names that no column has: a note's title, and whether it was written in error.
HEADING, RETRACTED = "@heading", "@retracted"
# Everything that a record may be made of; Alpaca's and ShareGPT's names too.
READ = (*FIELDS, "conversations", "instruction", "input", "output", HEADING, RETRACTED)
OPENING_WORDS = 8  # of a user, after which a conversation is another one
_WHOLE = re.compile(r"-?\d+\.0+")  # how pandas writes the whole numbers of a column that has gaps
_UNDECODED = re.compile("[\udc80-\udcff\ufffd]")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant", "system": "system"}


# Other names of splits that raw files use.
_SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation", "other": "ood"}


class UnreadableError(ValueError):
    """What is wrong with a record or a file, in words that quote nothing of it."""


class FileOptions(Params):
    """How files are read that do not say so themselves; what is left out is detected."""

    delimiter: str = Field("", max_length=1)
    encoding: str = ""
    columns: dict[str, str] = Field(default_factory=dict)  # our field (FIELDS) to the file's column
    group: str = ""  # of text files: a regular expression, whose bracket matches in their names what belongs together
    # Types of identifiers to the file's columns that hold them: of the patient whose group a row is in, and of staff.
    patient: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    staff: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("patient", "staff")
    @classmethod
    def _check_types(cls, by_type: dict[str, object]) -> dict[str, object]:
        if unknown := sorted({*by_type} - KNOWN_BY):
            raise ValueError(
                f"{unknown[0]!r} is no type of identifier that people are looked for by; there are {', '.join(sorted(KNOWN_BY))}"
            )
        return by_type

    @field_validator("group")
    @classmethod
    def _has_one_bracket(cls, value: str) -> str:
        try:
            is_usable = not value or re.compile(value).groups == 1
        except re.error:
            is_usable = False
        if not is_usable:
            raise ValueError("is no regular expression with one pair of round brackets, as in (.*)-[0-9]+")
        return value


def bad_characters(text: str) -> str:
    """What makes a line unusable; empty for a good one."""
    if "\0" in text:
        return "holds NUL bytes"
    if text.isascii():
        return ""
    try:
        text.encode()  # many times as fast as a search
    except UnicodeEncodeError:
        if not _UNDECODED.search(text):
            return "holds half a character (a lone surrogate)"
        return "holds bytes that are not in the file's encoding"
    return "holds bytes that are not in the file's encoding" if "\ufffd" in text else ""


def to_document(record: Mapping[str, Any], name: str, position: str, *, own_id: bool = False) -> Document | Rejected:
    """A Document from a record's fields, by our names for them (FIELDS, lower case): question and answer, a text, or messages."""
    try:
        return _document(record, name, position, own_id)
    except UnreadableError as problem:
        return Rejected(name, position, str(problem))


def table_record(record: Mapping[str, Any], name: str, position: str, *, own_id: bool = False) -> Document | Rejected | Skipped:
    """As ``to_document``, for a row of a table or a JSON object: also Alpaca's and ShareGPT's; a note begins with its title, and one that
    its hospital marked as an error is skipped.
    """
    if str(as_name(record.get(RETRACTED))).lower() in ("1", "true", "t", "yes", "y"):
        return Skipped(name, position, "is marked as written in error")
    heading, text = record.get(HEADING), record.get("text")
    if isinstance(heading, str) and isinstance(text, str) and heading.strip().lower() not in EMPTY and text.strip().lower() not in EMPTY:
        heading = heading.strip()
        if not text.lstrip().lower().startswith(heading.lower()):
            record = {**record, "text": f"{heading}\n\n{text}"}
    if "conversations" in record:
        record = {**record, "messages": record["conversations"]}
    if "instruction" in record and "output" in record:
        parts = [part for part in (record["instruction"], record.get("input")) if part]
        question = "\n\n".join(parts) if all(isinstance(part, str) for part in parts) else 0
        record = {**record, "question": question, "answer": record["output"]}
    return to_document(record, name, position, own_id=own_id)


def as_name(value: object) -> Any:
    """What names a group, a topic or a record, as text: 0, "0" and 17 are names, 17.0 is 17; what is no text or number stays as it is."""
    if value is None or value != value:  # noqa: PLR0124 (NaN)
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):  # whose remainder has a limit of digits
        return str(int(value)) if value.is_finite() and value == value.to_integral_value() else str(value)
    if isinstance(value, int | float):
        return str(int(value)) if value % 1 == 0 else str(value)
    return value.strip().rpartition(".")[0] if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value


def _document(record: Mapping[str, Any], name: str, position: str, own_id: bool) -> Document:
    texts = {field: record.get(field) or "" for field in ("question", "answer", "text", "split")}
    texts |= {field: as_name(record.get(field)) for field in ("group", "topic")}
    if any(not isinstance(value, str) for value in texts.values()):
        raise UnreadableError("has a question, answer, text, split or group that is not text")
    texts = {field: value.strip() for field, value in texts.items()}
    texts |= {field: "" for field in ("group", "topic") if texts[field].lower() in EMPTY}
    before: tuple[tuple[str, str], ...] = ()
    category = "qa"
    if record.get("messages"):
        *earlier, (_, texts["question"]), (_, texts["answer"]) = _turns(record["messages"])
        before, category = tuple(earlier), "chat" if earlier else "qa"
    elif texts["text"] and not texts["answer"] and not texts["question"]:
        texts["answer"], category = texts["text"], "text"
    needed = {"text": ("answer",)}.get(category, ("question", "answer"))
    if missing := [field for field in needed if texts[field].lower() in EMPTY]:
        raise UnreadableError(f"has no {'text' if category == 'text' else missing[-1]}")
    everything = "".join([*texts.values(), *(text for _, text in before)])
    if problem := TOO_LONG if len(everything) > MAX_RECORD else bad_characters(everything):
        raise UnreadableError(problem)
    own = as_name(record.get("id"))
    if own_id and (not isinstance(own, str) or own.strip().lower() in EMPTY):
        raise UnreadableError("has no id")
    turns = ["\x1f".join(turn) for turn in before]
    key = content_id(name, "id", own.strip()) if own_id else content_id(name, *turns, texts["question"], texts["answer"])
    stem = name.removesuffix(".gz").rsplit(".", 1)[0]
    group, split = _group(texts, before, key), _split(texts["split"])
    return Document(
        key, texts["question"], texts["answer"], name, f"{category}-{stem}", group, position, split, before, topic=texts["topic"]
    )


def _split(name: str) -> str:
    split = _SPLIT_NAMES.get(name.lower(), name.lower())
    if split in EMPTY:
        return ""
    if split not in SPLITS:
        raise UnreadableError(f"has an unknown split (known: {', '.join(SPLITS)})")
    return split


def _group(texts: Mapping[str, str], before: Sequence[tuple[str, str]], key: str) -> str:
    """What the record says belongs together, else its topic, else its question; of a conversation, how it opens."""
    if named := group_named(texts):
        return named
    if texts["topic"]:
        return f"topic:{texts['topic'].lower()}"
    return f"question:{content_id(_opening([*before, ('user', texts['question'])]))}" if texts["question"] else f"record:{key}"


def group_named(record: Mapping[str, Any]) -> str:
    """The group that a record names; empty where it names none."""
    group = str(as_name(record.get("group"))).strip()
    return "" if group.lower() in EMPTY else f"qa:{group}"


def _opening(turns: Sequence[tuple[str, str]]) -> str:
    """What a user says first, up to the turn with which it has OPENING_WORDS: the parts of one conversation share it, two that only
    begin with a greeting or end with the same question do not.
    """
    words: list[str] = []
    for role, text in turns:
        words += text.lower().split() if role == "user" else []
        if len(words) >= OPENING_WORDS:
            break
    return " ".join(words)


def _turns(messages: object) -> list[tuple[str, str]]:
    """The turns of a conversation that ends in a question and its answer; ``UnreadableError`` says what is wrong with it."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise UnreadableError("has messages that are not a list of JSON objects")
    turns = []
    for message in messages:
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if not isinstance(role, str) or role.lower() not in _ROLES:
            raise UnreadableError("has a message of an unknown role")
        if not isinstance(content, str) or not content.strip():
            raise UnreadableError("has a message without text")
        turns.append((_ROLES[role.lower()], content.strip()))
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise UnreadableError("has messages that do not end in a user's and the assistant's")
    return turns


def mapped(names: list[str], options: FileOptions) -> list[str]:
    """Our names for a file's columns or keys, whatever their case: those of the options, else those of a known layout."""
    lowered = [name.strip().lower() for name in names]
    field_of = {column.strip().lower(): field for field, column in options.columns.items()} or known_layout(lowered)
    return [field_of.get(name, "topic" if name == "focus" else name) for name in lowered]


# Tables of notes as hospitals export them: the columns that tell one, and our fields for its columns.
_LAYOUTS: tuple[tuple[frozenset[str], dict[str, str]], ...] = (
    # OMOP CDM 5, table NOTE: https://ohdsi.github.io/CommonDataModel/cdm54.html#note
    (frozenset({"note_id", "person_id", "note_text"}), {"note_text": "text", "person_id": "group", "note_title": HEADING}),
    # MIMIC-III, NOTEEVENTS: https://mimic.mit.edu/docs/iii/tables/noteevents
    (frozenset({"row_id", "subject_id", "iserror", "text"}), {"subject_id": "group", "iserror": RETRACTED}),
    # MIMIC-IV-Note, discharge and radiology: https://mimic.mit.edu/docs/iv/modules/note
    (frozenset({"note_id", "subject_id", "text"}), {"subject_id": "group"}),
)


def known_layout(columns: list[str]) -> dict[str, str]:
    """Our fields by column of the known table that has these columns, in lower case; empty where none has."""
    names = {*columns}
    return next((dict(fields) for needed, fields in _LAYOUTS if needed <= names), {})
