"""De-identification: what is found, what is left alone, what stands in its place, and that the measure can fail."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT
from hypothesis import given
from hypothesis import strategies as st

from tasks.corpus.deidentify import recall
from tasks.corpus.deidentify.analyzer import PiiAnalyzer, PiiSpan
from tasks.corpus.deidentify.document import deidentified
from tasks.corpus.deidentify.languages import LANGUAGES, in_language
from tasks.corpus.deidentify.pii_templates import fill, read_templates
from tasks.corpus.deidentify.policy import TYPES, DeidentifyParams
from tasks.corpus.documents import Document, content_id, read_documents, write_documents
from tasks.corpus.params import PreprocessParams
from tasks.params import read_params
from tasks.preprocess import preprocess

DEFAULTS = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
NOTE = (
    "Dear Dr. Maria Lopez, your patient Mr. Thomas Oakley, MRN 4471182, was admitted on 03/14/2019 and discharged on March 21, 2019. "
    "He is 93 years old and lives at 12 Maple Avenue, Springfield, IL 62704. Phone (217) 555-0143, e-mail t.oakley@example.com. "
    "SSN 123-45-6789. Mr. Oakley takes metformin 500 mg for type 2 diabetes since 2008. Call 1-800-273-8255 or 911 in an emergency. "
    "Parkinson disease was excluded; BP 120/80, GCS 15, E11.9."
)
SECRETS = ("Lopez", "Oakley", "4471182", "03/14", "March 21", "93", "Maple", "Springfield", "62704", "0143", "t.oakley", "6789")
KEPT = ("metformin 500 mg", "2008", "1-800-273-8255", "911", "Parkinson disease", "120/80", "GCS 15", "E11.9")


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(b"0123456789abcdef" * 2)
    return iter([None])


def params(**changes: Any) -> DeidentifyParams:
    return DeidentifyParams.model_validate(DEFAULTS.deidentify.model_dump() | changes)


def digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def document(answer: str, question: str = "") -> Document:
    return Document(content_id(answer, question), question, answer, "s", "k", "patient 1", "1")


def changed(text: str, **changes: Any) -> str:
    return deidentified(document(text), params(**changes).model_dump_json())[0].answer


def test_identifiers_go_and_medicine_stays() -> None:
    text = changed(NOTE)
    assert not [secret for secret in SECRETS if secret in text]
    assert not [kept for kept in KEPT if kept not in text]
    assert "admitted on 2019" in text and "He is 90+ years old" in text
    assert " 627. Phone" in text and "[MRN]" in text and "[SSN]" in text


@pytest.mark.slow
def test_recall_on_held_out_templates_and_hard_negatives(tmp_path: Path) -> None:
    answers = ["Asthma is a disease of the airways. It causes wheezing in 10 % of children.", "Take 5 mg twice daily for 3-5 days."]
    write_documents([replace(document(a), split="clean") for a in answers], tmp_path / "clean")
    shares = recall.measure_recall(params(injections=8), 1, tmp_path)
    held_out = {s.name: s for s in shares["recall"] if s.half == "held-out"}
    assert set(held_out) == set(TYPES)
    at_least = dict.fromkeys(TYPES, 0.8) | {"FACILITY": 0.5, "OTHER": 0.7} | dict.fromkeys(("NAME", "DATE"), 0.87)
    at_least |= dict.fromkeys(("SSN", "MRN", "NPI", "EMAIL", "URL", "IP"), 0.95)
    assert not {type_: share.share for type_, share in held_out.items() if share.share < at_least[type_]}
    assert all(s.templates >= 12 and s.low <= s.share <= s.high for s in held_out.values())
    of_names = {s.language: s for s in shares["languages"] if s.half == "all"}
    assert len(of_names) >= 30 and sum(language.held_out for language in LANGUAGES.values()) >= len(LANGUAGES) / 2
    assert not [s for s in of_names.values() if s.name != "NAME" or s.share < 0.85]
    assert of_names["Greek"].injections >= 30 and of_names["Turkish"].templates > of_names["Greek"].templates
    for half in ("all", "held-out"):
        rows = [s for s in shares["hard_negatives"] if s.half == half]
        assert sum(s.share * s.templates for s in rows) / sum(s.templates for s in rows) <= 0.05


def test_there_are_twenty_templates_of_each_type_and_each_can_be_filled() -> None:
    from random import Random

    templates = read_templates("pii-templates")
    for type_ in TYPES:
        assert len({t.text for t in templates if t.name == type_}) >= 20
        assert sum(t.held_out for t in templates if t.name == type_) >= 10
    assert not {t.text for t in templates if t.held_out} & {t.text for t in templates if not t.held_out}
    for template in [*templates, *read_templates("hard-negatives")]:
        filled = fill(template.text, Random(1))
        assert all(filled.text[a:b].strip() for a, b in filled.spans)


def test_a_language_of_which_too_little_is_found_fails_the_stage_although_all_together_pass() -> None:
    share = recall.Share("NAME", "all", 30, 900, 0.97, 0.9, 0.99)
    languages = [replace(share, language="Greek", share=0.1), replace(share, language="Danish")]
    assert recall.below([share, *languages], {"NAME": 0.8}) == ["NAME in Greek 0.100 < 0.8"]


def test_names_of_a_language_fill_the_templates_whole_where_its_script_has_no_case() -> None:
    from random import Random

    assert in_language("Name: <{last}, {first} {initial}>; {city}", "zh") == "Name: <{zh_name}>; {city}"
    assert in_language("By <{initial}. {last}>", "cs") == "By <{cs_initial}. {cs_last}>"
    for code in LANGUAGES:
        assert fill(in_language("Name: <{first} {last}>", code), Random(3)) == fill(in_language("Name: <{first} {last}>", code), Random(3))


def test_a_mark_of_a_letter_that_is_left_is_no_mask() -> None:
    text = "Mu\u0308"
    assert recall.is_covered(text, 0, 3, [PiiSpan(0, 3, "NAME")]) and not recall.is_covered(text, 0, 3, [PiiSpan(0, 2, "NAME")])


def test_the_report_says_which_languages_are_measured() -> None:
    from collections import Counter

    from tasks.corpus.report import ShardStats, page

    share = asdict(recall.Share("NAME", "all", 30, 900, 0.97, 0.9, 0.99))
    report = {
        "recall": [share],
        "languages": [share | {"language": "Greek", "share": 0.5}, share | {"language": "Thai"}],
        "hard_negatives": [],
    }
    contents = ShardStats(documents=Counter({("a", "train"): 1}), tokens=Counter({("a", "train"): 1}), lengths={"train": Counter({16: 1})})
    html = page({"rows": [], "decontamination": [0] * 10}, report, contents, {}, [])
    assert "Measured: Greek, Thai; other languages: not measured" in html and "<td>Greek" in html and "0.500" in html
    del report["languages"]  # as a report from before they were measured has it
    assert "Measured:" not in page({"rows": [], "decontamination": [0] * 10}, report, contents, {}, [])


def test_a_name_in_capitals_or_in_letters_in_parts_gets_the_same_surrogate() -> None:
    options: dict[str, Any] = {"policy": {"NAME": "surrogate"}, "key_file": "key", "key_digest": digest_of("key")}
    one, two, three = changed("Dr. Jürgen Weiß, Dr. JÜRGEN WEISS, Dr. Ju\u0308rgen Weiß", **options).replace("Dr. ", "").split(", ")
    assert one == three and one.casefold() == two.casefold() and "\u0308" not in one


def test_surrogates_look_alike_and_are_the_same_within_a_document_only() -> None:
    policy = {type_: "surrogate" for type_ in TYPES if type_ != "DATE"}
    options: dict[str, Any] = {"policy": policy, "key_file": "key", "key_digest": digest_of("key"), "dates": "shift"}
    text = changed(NOTE, **options)
    assert not [secret for secret in SECRETS if secret in text] and "[" not in text
    surname = text.split("Mr. ")[1].split(",")[0].split()[-1]
    assert text.split("Mr. ")[2].startswith(surname)
    assert changed(NOTE, **options) == text
    assert changed(NOTE + " ", **options) != text + " "
    Path("other").write_bytes(b"another key of thirty-two bytes!")
    assert changed(NOTE, **options | {"key_file": "other", "key_digest": digest_of("other")}) != text
    with pytest.raises(ValueError, match=f"key_digest is not {digest_of('other')}, as other has"):
        changed(NOTE, **options | {"key_file": "other"})


def test_shifted_dates_keep_their_distance_and_form() -> None:
    from datetime import datetime

    text = changed(
        "Admitted on 03/14/2019, operated on March 16, 2019, gone on 2019-03-21.",
        dates="shift",
        key_file="key",
        key_digest=digest_of("key"),
    )
    first, second, third = (
        text.removeprefix("Admitted on ").removesuffix(".").replace(", operated on ", "|").replace(", gone on ", "|").split("|")
    )
    days = [datetime.strptime(first, "%m/%d/%Y"), datetime.strptime(second, "%B %d, %Y"), datetime.strptime(third, "%Y-%m-%d")]
    assert [(day - days[0]).days for day in days] == [0, 2, 7] and days[0].year in (2018, 2019) and "03/14/2019" not in text


def test_a_year_that_tells_of_an_age_over_89_goes_too() -> None:
    assert changed("DOB: 05/06/1921. Seen on 05/06/2019.") == "DOB: [DATE]. Seen on 2019."


def test_what_the_policy_keeps_stays() -> None:
    assert "12 Maple Avenue" in changed(NOTE, policy={"ADDRESS": "keep"}) and "03/14/2019" in changed(NOTE, dates="keep")
    assert "Oakley" in changed(NOTE, allow=("thomas oakley", "Oakley"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"NOSE": "mask"}}, "'NOSE' is no type of identifier"),
        ({"policy": {"DATE": "mask"}}, "said by 'dates'"),
        ({"dates": "shift"}, "need a 'key_file'"),
        ({"policy": {"NAME": "surrogate"}}, "need a 'key_file'"),
    ],
)
def test_params_that_cannot_be_followed_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(**changes)


def test_a_key_and_a_model_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match="key_file: nowhere does not hold 32 bytes"):
        PiiAnalyzer(params(dates="shift", key_file="nowhere"))
    with pytest.raises(ValueError, match="entity_model: no_such_model is not installed"):
        PiiAnalyzer(params(entity_model="no_such_model"))


@pytest.mark.slow
def test_the_stage_fails_below_the_recall_that_is_asked_for_and_writes_nothing() -> None:
    Path("data").mkdir()
    rows = [{"question": f"What is disease {n}?", "answer": f"Disease {n} has {n} spots."} for n in range(60)]
    Path("data/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    deidentify = params(policy={"SSN": "keep"}, min_recall={"MRN": 0.5, "DEVICE": 1.0, "SSN": 1.0})
    strict = DEFAULTS.model_copy(update={"deidentify": deidentify})
    with pytest.raises(ValueError, match=r"finds too few of the injected identifiers: DEVICE 0\.\d+ < 1.0 \(preprocess") as error:
        preprocess(Path("data"), Path("documents"), Path("report"), Path("rejected"), params=strict)
    assert "MRN" not in str(error.value) and not Path("documents").exists()
    assert Path(".cache/failed-preprocess/report/deidentification.json").exists()


@pytest.mark.slow
def test_identifiers_of_raw_records_stand_in_no_output() -> None:
    Path("data").mkdir()
    rows = [{"question": f"What of Mr. Thomas Oakley, MRN 447118{n % 10}, visit {n}?", "answer": f"Note {n}. {NOTE}"} for n in range(4)]
    rows += [{"question": f"What is disease {n}?", "answer": f"Disease {n} has {n} spots."} for n in range(60)]
    Path("data/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loose = DEFAULTS.model_copy(update={"validation_share": 0.2, "test_share": 0.2})
    preprocess(Path("data"), Path("documents"), Path("report"), Path("rejected"), params=loose)
    written = "".join(p.read_text() for folder in ("documents", "report") for p in Path(folder).rglob("*") if p.is_file())
    assert not [secret for secret in SECRETS if secret in written and not secret.isdecimal()] and "447118" not in written
    notes = [d for split in ("train", "validation", "test") for d in read_documents(Path("documents"), split) if "Note" in d.answer]
    assert notes and all("[NAME]" in d.answer for d in notes)
    funnel = json.loads(Path("report/funnel.json").read_text())
    assert {row["rule"] for row in funnel["rows"] if row["step"] == "identifiers"} >= {"NAME", "MRN", "DATE", "SSN"}


@given(st.text(alphabet=st.sampled_from("aA1 .,-/:@#()\n'é"), max_size=300))
def test_any_text_is_worked_on_and_what_is_replaced_is_what_was_found(text: str) -> None:
    original = document(text)
    result, types = deidentified(original, params().model_dump_json())
    assert bool(types) or result == original


@pytest.mark.parametrize("unit", ["a", "A", "1", "Aa ", "A1-", "1 ", "a.", "1.", "f:", "phone no. ", "Aa", "lot #", "+1 "])
def test_time_grows_with_the_length_of_any_text(unit: str) -> None:
    analyze = PiiAnalyzer(params()).analyze
    analyze(unit * (200_000 // len(unit)))
