"""The texts that a FHIR resource holds: attachments, conclusions, sections.

They are read as plain JSON, not through a model of FHIR: exports differ in version and profile.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from tasks.corpus.readers.attachments import NoTextError
from tasks.corpus.readers.fhir_resources import Json
from tasks.corpus.readers.records import UnreadableError, bad_characters
from tasks.corpus.readers.rendering import html_text

MAX_SECTIONS = 50  # levels of a Composition's sections
SAME = 0.95  # of the words of two texts, and all numbers: they are one note in two formats
Attached = Callable[[Json], str]


class RepeatedNoteError(UnreadableError):
    """A note that its resource holds in another format too."""


def texts(resource: Json, attached: Attached) -> Iterator[str | UnreadableError]:
    """The texts of a resource, each with something in it, or what keeps one from being read.

    A resource of another structure than its type's raises ``AttributeError``, ``TypeError`` or ``KeyError``.
    """
    match resource["resourceType"]:
        case "Composition":
            yield from _checked([lambda: composition_text(resource)])
        case "ClinicalImpression":
            parts = [resource.get("description"), resource.get("summary"), *(note["text"] for note in resource.get("note", []))]
            yield from _checked([lambda: "\n\n".join(part for part in parts if part)])
        case "DiagnosticReport":
            yield from _report(resource, attached)
        case _:
            attachments = [content["attachment"] for content in resource.get("content", [])]
            yield from _distinct(list(_checked([_reader(attachment, attached) for attachment in attachments])))


def composition_text(resource: Json) -> str:
    """The title of a Composition and its sections, each below its own; empty where it has no text."""
    parts = [part for section in resource.get("section", []) for part in _section(section, 1)]
    if not parts and (narrative := _narrative(resource)):
        parts = [narrative]
    return "\n\n".join([*([title] if isinstance(title := resource.get("title"), str) else []), *parts]) if parts else ""


def _section(section: Json, level: int) -> Iterator[str]:
    if level > MAX_SECTIONS:
        raise UnreadableError(f"has sections more than {MAX_SECTIONS} levels deep")
    text, title = _narrative(section), section.get("title") or (section.get("code") or {}).get("text") or ""
    below = [part for child in section.get("section", []) for part in _section(child, level + 1)]
    if text or below:
        yield "\n".join(part for part in (title.strip(), text) if part)
        yield from below


def _narrative(resource: Json) -> str:
    narrative = resource.get("text") or {}
    return "" if narrative.get("status") == "empty" else html_text(narrative.get("div") or "")


def _report(resource: Json, attached: Attached) -> Iterator[str | UnreadableError]:
    """The forms of a report, the last one with the conclusion where no form has it."""
    forms = _distinct(list(_checked([_reader(form, attached) for form in resource.get("presentedForm", [])])))
    conclusion = resource.get("conclusion") or ""
    if not isinstance(conclusion, str):
        yield UnreadableError("has a conclusion that is not text")
    elif not any(_plain(conclusion) in _plain(form) for form in forms if isinstance(form, str)):
        last = max((i for i, form in enumerate(forms) if isinstance(form, str)), default=None)
        form = forms.pop(last) if last is not None else ""
        forms += _checked([lambda: f"{form}\n\n{conclusion}"])
    yield from forms


def _reader(attachment: Json, attached: Attached) -> Callable[[], str]:
    attachment.get("contentType")  # raises an AttributeError for what is no JSON object
    return lambda: attached(attachment)


def _checked(readers: list[Callable[[], str]]) -> Iterator[str | UnreadableError]:
    for reader in readers:
        try:
            text = reader()
        except UnreadableError as error:
            yield error
            continue
        if problem := bad_characters(text):
            yield UnreadableError(problem)
        elif text.strip():
            yield text.strip("\r\n").rstrip()
        elif len(readers) > 1:
            yield UnreadableError("holds an empty note")


def _distinct(results: list[str | UnreadableError]) -> list[str | UnreadableError]:
    """Each text once: of the formats of one note the longest; and a picture is none to miss where there is a text."""
    taken: list[tuple[Counter[str], int]] = []  # the words of a text, and which it is
    distinct: list[str | UnreadableError] = []
    for result in results:
        if isinstance(result, NoTextError) and any(isinstance(other, str) for other in results):
            distinct.append(RepeatedNoteError(f"{result}, beside a text that is read"))
        elif isinstance(result, str):
            words = Counter(re.findall(r"\w+", result))
            same = next((n for n, (other, _) in enumerate(taken) if _are_same(words, other)), None)
            if same is None:
                taken.append((words, len(distinct)))
                distinct.append(result)
                continue
            other, i = taken[same]
            if words.total() > other.total():
                taken[same], distinct[i] = (words, i), result
            distinct.append(RepeatedNoteError("is a note that its resource holds in another format too"))
        else:
            distinct.append(result)
    return distinct


def _are_same(one: Counter[str], other: Counter[str]) -> bool:
    numbers = [{word: n for word, n in words.items() if word.isdecimal()} for words in (one, other)]
    return numbers[0] == numbers[1] and (one & other).total() >= SAME * (one | other).total()


def _plain(text: str) -> str:
    return " ".join(text.split())
