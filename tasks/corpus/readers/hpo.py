"""Questions and answers from the Human Phenotype Ontology: hp.obo and phenotype.hpoa.

Every sentence restates the ontology's own content; names, definitions and relations are not changed, and each document keeps
the term's or disease's id as its position.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import obonet

from tasks.corpus.documents import Document, Rejected, content_id, share
from tasks.corpus.readers.records import TOO_LONG, UnreadableError
from tasks.corpus.readers.streams import MAX_WHOLE_FILE, numbered

# Frequency classes of the HPO (terms below HP:0040279) and the lowest share of patients of each.
BANDS = (
    ("HP:0040280", 1.0, "Always present"),
    ("HP:0040281", 0.8, "Very frequent (80 % or more of those affected)"),
    ("HP:0040282", 0.3, "Frequent (30-79 %)"),
    ("HP:0040283", 0.05, "Occasional (5-29 %)"),
    ("HP:0040284", 0.0, "Very rare (under 5 %)"),
)
UNKNOWN_BAND = "Also described"
EXCLUDED = "HP:0040285"
COLUMNS = ("database_id", "disease_name", "qualifier", "hpo_id", "frequency", "aspect")  # of phenotype.hpoa
# Before 2023 the header was a comment with other names, and before 2018 there was none.
_OLD_HEADER = re.compile(r"#?(?:DatabaseID|DB|disease-db|disease[-_]?id)\t|(?:OMIM|ORPHA|ORPHANET|DECIPHER)[:\t]", re.IGNORECASE)
_OLD = f"has the header of a version before 2023; download the file again, its columns are {', '.join(COLUMNS)} today"
MAX_SIGNS = 12  # per band, so that one disease's list does not fill a training row

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)" (EXACT|BROAD|NARROW|RELATED) ?(\w*)')


Terms = dict[str, dict[str, Any]]


def read_obo(path: Path, source: str) -> Iterator[Document]:
    """The documents of an OBO file."""
    return read_ontology(parse_obo(path), source)


def read_hpoa(path: Path, source: str) -> Iterator[Document | Rejected]:
    """The documents of a phenotype.hpoa file; the ontology must be in the same folder."""
    ontology = path.with_name("hp.obo")
    if not ontology.exists():
        raise UnreadableError(f"needs {ontology.name} beside it, for the names of its terms")
    return read_annotations(path, source, parse_obo(ontology))


def parse_obo(path: Path) -> Terms:
    """The named terms of an OBO file by id; obsolete ones are left out. ``UnreadableError`` says what is wrong with it."""
    if path.stat().st_size > MAX_WHOLE_FILE:
        raise UnreadableError(f"is larger than {MAX_WHOLE_FILE >> 20} MiB, the most of an OBO file that is read")
    try:
        graph = obonet.read_obo(path)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError):  # messages quote the file
        raise UnreadableError("is not an OBO file") from None
    return {term: data for term, data in graph.nodes(data=True) if data.get("name")}


def lay_synonyms(path: Path) -> Iterator[tuple[str, str]]:
    """Each name of a term with each of its synonyms that is a layperson's."""
    for data in parse_obo(path).values():
        synonyms = [match.groups() for text in data.get("synonym", []) if (match := _SYNONYM.match(text))]
        names = [data["name"], *(text for text, scope, type_ in synonyms if scope == "EXACT" and type_ != "layperson")]
        yield from ((name, text) for name in names for text, _, type_ in synonyms if type_ == "layperson")


def read_ontology(terms: Terms, source: str) -> Iterator[Document]:
    """Definitions, synonyms and subclasses of an ontology's terms."""
    names = Names(_texts(terms))
    children: dict[str, list[str]] = defaultdict(list)
    for term, data in terms.items():
        for parent in data.get("is_a", []):
            children[parent].append(term)
    for term, data in terms.items():
        name = names.inline(data["name"])
        parents = sorted(data.get("is_a", []))
        group = f"hpo:{parents[0]}" if parents else f"hpo:{term}"
        synonyms = [m.groups() for m in map(_SYNONYM.match, data.get("synonym", [])) if m]
        exact = _distinct((names.inline(text) for text, scope, type_ in synonyms if scope == "EXACT" and type_ != "obsolete_synonym"), name)
        lay = _distinct((names.inline(text) for text, scope, type_ in synonyms if type_ == "layperson"), name)

        def document(
            category: str, question: str, answer: str, group: str, term: str = term, name: str = name, exact: list[str] = exact
        ) -> Document:
            key = content_id(source, category, question, answer, term)
            return Document(key, question, answer, source, category, group, term, topic=name, aliases=tuple(exact))

        if definition := _QUOTED.match(data.get("def", "")):
            known_as = f" It is also known as {_listed(lay[:3])}." if lay else ""
            yield document("hpo-definition", f"What is {name}?", _sentence(definition.group(1)) + known_as, group)
        if len(exact) > 1:
            answer = f"{_capital(name)} is also called {_listed(exact)}."
            yield document("hpo-synonyms", f"What other names does {name} have?", answer, group)
        if len(children[term]) > 1:
            kinds = sorted((names.inline(terms[c]["name"]) for c in children[term]), key=lambda k: share(term, k))
            shown = kinds[:MAX_SIGNS]
            more = f", and {len(kinds) - len(shown)} more" if len(kinds) > len(shown) else ""
            answer = f"Kinds of {name} are {', '.join(shown)}{more}." if more else f"Kinds of {name} are {_listed(shown)}."
            # Children whose first parent this is have it as their group, so the list stays with their definitions.
            yield document("hpo-kinds", f"What kinds of {name} are there?", answer, f"hpo:{term}")


def read_annotations(path: Path, source: str, terms: Terms) -> Iterator[Document | Rejected]:
    """Signs by frequency, and inheritance with onset, of the diseases in a phenotype.hpoa file."""
    names = Names(_texts(terms))
    signs = {term: names.inline(data["name"]) for term, data in terms.items()}
    signs |= {old: signs[term] for term, data in terms.items() for old in data.get("alt_id", [])}
    diseases: dict[str, list[dict[str, str]]] = defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for i, row in _annotations(file):
            if isinstance(row, str):
                yield Rejected(source, f"line {i}", row)
            elif row["hpo_id"] not in signs:
                yield Rejected(source, f"{row['database_id']} {row['hpo_id']}", "names a term that the ontology does not have")
            elif row["qualifier"] != "NOT" and row["frequency"] != EXCLUDED:
                diseases[row["database_id"]].append(row)
    for disease, rows in diseases.items():
        name = rows[0]["disease_name"]
        with_signs = [r | {"sign": signs[r["hpo_id"]]} for r in rows]
        group = f"disease:{base_name(name)}"
        for category, question, answer in (
            ("disease-signs", f"Which clinical findings are seen in {name}?", _signs(disease, with_signs)),
            ("disease-course", f"How is {name} inherited, and when does it begin?", _course(name, with_signs)),
        ):
            if answer:
                key = content_id(source, category, question, answer, disease)
                yield Document(key, question, answer, source, category, group, disease, topic=name)


def _annotations(file: IO[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The rows of a phenotype.hpoa file with their line numbers, or what is wrong with one."""
    header: list[str] = []
    for i, line in numbered(file):
        if line is None:
            yield i, TOO_LONG
        elif not header and _OLD_HEADER.match(line):
            raise UnreadableError(_OLD)
        elif not line.startswith("#"):
            cells = line.rstrip("\r\n").split("\t")
            if not header:
                header = cells
                if missing := [name for name in COLUMNS if name not in header]:
                    raise UnreadableError(f"has a header with no column {', '.join(missing)}")
            elif len(cells) != len(header):
                yield i, f"has {len(cells)} cells, the header has {len(header)}"
            else:
                yield i, dict(zip(header, cells, strict=True))


def base_name(disease: str) -> str:
    """What the members of a family of diseases share: "Ciliary dyskinesia, primary, 28" is "ciliary dyskinesia"."""
    name = re.sub(r"\([^)]*\)", " ", disease.lower())
    name = re.split(r"[,;]", name)[0]
    name = re.sub(r"\b(type|form|variant|due to|caused by|with|without|and)\b.*", "", name)
    name = re.sub(
        r"\b(autosomal|x-linked|dominant|recessive|familial|congenital|hereditary|isolated|early-onset|juvenile|infantile)\b", "", name
    )
    words = [w for w in re.findall(r"[a-z][a-z'-]+", name) if not re.fullmatch(r"[ivx]+[a-z]?", w)]
    return " ".join(words) or disease.lower()


class Names:
    """Writes a capitalised name inside a sentence: its first word becomes lower-case where the corpus also writes it so."""

    def __init__(self, texts: Iterable[str]):
        self._lower = frozenset(word for text in texts for word in re.findall(r"(?<![.] )\b[a-z]+\b", text))

    def inline(self, name: str) -> str:
        """The name as it is written inside a sentence."""
        first = re.match(r"[A-Za-z]{2,}", name)
        is_common = first and first.group().lower() in self._lower
        return name[0].lower() + name[1:] if is_common else name


def _texts(terms: Terms) -> Iterator[str]:
    for data in terms.values():
        yield data.get("def", "")
        yield data.get("comment", "")


def _signs(disease: str, rows: list[dict[str, str]]) -> str:
    bands: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["aspect"] == "P":
            bands[band(row["frequency"])].append(row["sign"])
    sentences = []
    for label in [text for _, _, text in BANDS] + [UNKNOWN_BAND]:
        if signs := sorted(set(bands[label]), key=lambda s: share(disease, s)):
            more = f" and {len(signs) - MAX_SIGNS} more" if len(signs) > MAX_SIGNS else ""
            shown = ", ".join(signs[:MAX_SIGNS]) + more if more else _listed(signs)
            sentences.append(f"{label}: {shown}.")
    return " ".join(sentences)


def band(frequency: str) -> str:
    """The frequency class of an annotation: a class's id, a ratio such as 3/7, a percentage, or nothing."""
    by_id = {term: text for term, _, text in BANDS}
    if frequency in by_id:
        return by_id[frequency]
    if ratio := re.fullmatch(r"(\d+)/(\d+)", frequency):
        part = int(ratio[1]) / int(ratio[2]) if int(ratio[2]) else 0.0
    elif percentage := re.fullmatch(r"(\d+(?:\.\d+)?)%", frequency):
        part = float(percentage[1]) / 100
    else:
        return UNKNOWN_BAND
    return next(text for _, least, text in BANDS if part >= least)


def _course(name: str, rows: list[dict[str, str]]) -> str:
    inheritance = _distinct((r["sign"] for r in rows if r["aspect"] == "I"), "")
    onset = _distinct((r["sign"] for r in rows if r["aspect"] == "C" and "onset" in r["sign"].lower()), "")
    parts = []
    if inheritance:
        parts.append(f"The mode of inheritance of {name} is {_listed(inheritance)}.")
    if onset:
        parts.append(f"The described age of onset is {_listed(onset)}.")
    return " ".join(parts)


def _distinct(values: Iterable[str], name: str) -> list[str]:
    """The values in order, each once whatever its case, without ``name``."""
    by_lower = {value.lower(): value for value in reversed(list(values)) if value and value.lower() != name.lower()}
    return list(reversed(by_lower.values()))


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _sentence(text: str) -> str:
    text = re.sub(r"\\(.)", r"\1", text.replace("\\n", " ")).strip()
    return text if text.endswith((".", "!", "?")) else text + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
