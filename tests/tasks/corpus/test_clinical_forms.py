"""Clinical notes: what stays as it was, and what is found, kind by kind. No form of a table of templates is repeated here."""

import pytest
from helpers.project import ROOT

from tasks.corpus.cleaning.passes import Rules, rejection, repair
from tasks.corpus.cleaning.rules import collapse_space, has_suspect_numbers, remove_citations
from tasks.corpus.deidentify.analyzer import PiiAnalyzer, get_analyzer
from tasks.corpus.documents import Document
from tasks.corpus.extraction.definitions import NO_TASKS
from tasks.corpus.params import PreprocessParams
from tasks.params import read_params

PARAMS = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
RULES = Rules(3, 40000, frozenset(), 6, (), PARAMS.deidentify.model_dump_json(), NO_TASKS)
KEPT = (
    "CC: Chest Pain",
    "Re: Hip Pain",
    "PT: Gait Training",
    "Name: Lisinopril",
    "PT ALERT",
    "Father HTN",
    "mother Diabetes",
    "nurse Notified",
    "Interpreter: Spanish",
    "discussed with General Surgery",
    "X-Ray, PA and lateral",
    "Dear Colleague",
    "admitted to the Osler ward",
    "strength of 4/5",
    "Apgars of 8/9",
    "GCS of 3/15",
    "pain went from 8/10 to 2/10",
    "up to 5/7",
    "dose of 1/2 tablet",
    "pH 7.38",
    "white cell is 12.7",
    "T: 96.5",
    "extension: 4/5",
    "call 000 in an emergency",
    "ref 60-110",
    "DL 4.2 ms",
    "temperature to be 104F",
    "Patient: 75M",
    "Glucose,95\nCalcium,9\nHematocrit,36",
    "Birth weight 2740 g",
    "UOP 1530 mL",
    "38.50 C",
    "37.1 C. Nelson came later",
    "metformin 510 mg",
    "nodes 3/17 positive",
    "Braden 17, MoCA 22/30",
    "s/p Roux-en-Y",
    "Bishop score 8/13",
    "T. Norvasc      5 mg      1-0-0",
    "Weber midline, Rinne positive",
    "C. Diff toxin",
    "foramen of Monro",
    "Dr. X saw her",
    "PMID 12345678",
    "seen at the Pain Clinic",
    "Mom denies apnea",
)


@pytest.fixture(scope="module")
def analyzer() -> PiiAnalyzer:
    return get_analyzer(PARAMS.deidentify.model_dump_json())


def masked(analyzer: PiiAnalyzer, text: str) -> str:
    for span in reversed(analyzer.analyze(text)):
        text = f"{text[: span.start]}[{span.type}]{text[span.end :]}"
    return text


def note(text: str, question: str = "") -> Document:
    return Document("0" * 24, question, text, "a.txt", "text", "g", "line 1")


@pytest.mark.parametrize("text", KEPT)
def test_what_is_clinical_stays(text: str, analyzer: PiiAnalyzer) -> None:
    repaired, _ = repair(note(text))
    assert repaired.answer == text
    assert masked(analyzer, text) == text


@pytest.mark.parametrize("text", ["Birth weight 2740 g.", "UOP 1530 mL.", "T 38.50 C.", "metformin 510 mg daily.", "gave 100125 mg."])
def test_a_note_is_never_left_out_for_a_number(text: str) -> None:
    assert rejection(note(text), RULES) is None
    assert not has_suspect_numbers(note(text, "How much?")) or "100125" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SMITH,JOHN A", "[NAME]"),
        ("HOLLOWAY, MARGARET R", "[NAME]"),
        ("Patient: HOLLOWAY, MARGARET R   MRN", "Patient: [NAME]   MRN"),
        ("Pt: Smith, Ann L hip pain", "Pt: [NAME] L hip pain"),
        ("Read by Smith, A. MD", "Read by [NAME] MD"),
        ("mr smith was comfortable", "mr [NAME] was comfortable"),
        ("Per Smith, no change", "Per [NAME], no change"),
        ("RN Ann S. at bedside", "RN [NAME] at bedside"),
        ("D/w Ann Smith (son)", "D/w [NAME] (son)"),
        ("/es/ ANN M SMITH", "/es/ [NAME]"),
        ("Dict: W Miller MD", "Dict: [NAME] MD"),
        ("cc: Okafor; Dr. Patel, Lindqvist", "cc: [NAME]; Dr. [NAME]"),
        ("JAS/abc", "[NAME]"),
        ("Patient | Ann Smith | Rm 12", "Patient | [NAME] | Rm 12"),
        ("O'BRIEN, seen with trainee", "[NAME], seen with trainee"),
        ("Ward round with Kumar", "Ward round with [NAME]"),
        ("Case reviewed with Drs. Petrakis and Oyelaran.", "Case reviewed with Drs. [NAME] and [NAME]."),
        ("Baby girl Okonkwo, day 2", "Baby girl [NAME], day 2"),
        ("Known to Catarina, our social worker", "Known to [NAME], our social worker"),
        ("Oyelaran denies chest pain", "[NAME] denies chest pain"),
        ("seen on 21MAR2019", "seen on 2019"),
        ("stent 3.14.21 without complication", "stent [DATE] without complication"),
        ("in 03/2019 she fell", "in 2019 she fell"),
        ("Tues 3/4: clinic", "[DATE]: clinic"),
        ("fell in February", "fell in [DATE]"),
        ("Riverside Medical Center", "[FACILITY]"),
        ("transferred from Oakwood Rehab on Monday", "transferred from [FACILITY] on Monday"),
        ("Pathology accession S19-12345", "Pathology accession [OTHER]"),
        ("Job #: 4471823", "Job #: [OTHER]"),
        ("Visit no. 88412093", "Visit no. [ACCOUNT]"),
        ("92F with cough", "[AGE]F with cough"),
        ("lives in Albuquerque.  His prognosis is poor", "lives in [ADDRESS].  His prognosis is poor"),
    ],
)
def test_identifiers_as_hospitals_write_them(text: str, expected: str, analyzer: PiiAnalyzer) -> None:
    from tasks.corpus.deidentify.document import deidentified

    found = masked(analyzer, text)
    if "20" in expected and "[" not in expected:  # a year may stay
        found = deidentified(note(text), analyzer.params.model_dump_json())[0].answer
    assert found == expected


def test_a_mask_does_not_join_lines(analyzer: PiiAnalyzer) -> None:
    assert masked(analyzer, "Signed by: Ann Smith\nPlan: rest\nMRN: 12345678\nGlucose 95").count("\n") == 3


def test_layout_survives_and_pages_do_not_join() -> None:
    text = "PLAN\n  1. Pain\n      - ketorolac  15 mg\n\nTest      Result\tRef  \nSodium    140\t135-145\n\n\n\nEnd\x0cNext\u2028Last"
    assert collapse_space(text) == (
        "PLAN\n  1. Pain\n      - ketorolac  15 mg\n\nTest      Result    Ref\nSodium    140   135-145\n\nEnd\nNext\nLast"
    )


def test_two_blanks_behind_a_sentence_are_one() -> None:
    assert collapse_space("He rests.  She left.") == "He rests. She left."


def test_a_citation_is_taken_out_of_an_answer_and_a_value_of_a_note_never() -> None:
    assert remove_citations("seen in many countries.1 They") == "seen in many countries. They"
    assert repair(note("seen in many countries.1 They"))[0].answer == "seen in many countries.1 They"
    assert remove_citations("Glucose,95\nCalcium,9") == "Glucose,95\nCalcium,9"


@pytest.mark.parametrize(
    "text",
    [
        "SBP 110s, HR 90s.",
        "Vitals: 98.6 F, 92, 18, 120/80",
        "O2 sat now 95, HR 80",
        "HR is now 92, RR 18",
        "Pt is 96 on RA",
        "He is 92 kg",
        "Tmax 101 F with chills",
        "sperm count 95 M/mL",
        "CV: rrr",
        "GI: neg",
        "mild TR and mild MR",
        "Reported to the RN",
        "placement verified by KUB",
        "Surgery: Appendectomy",
        "Site: Deltoid",
        "Location: Chest",
        "Unit: Telemetry",
        "T: 98.6 80 120/80 16",
        "F: 98.6 80 120/80",
        "Home: 138/82 145/90",
        "ANC at 500-1000",
        "BiPAP at 14/6",
        "placed on 15/5",
        "started 1/2 NS",
        "blood cultures drawn 2/2 bottles",
        "BCx sent 2/4 GPC",
        "RPR titer 1/16",
        "lymph nodes (2/18)",
        "BCVA 6/18 OD",
        "strength 5/5 CT head negative",
        "Pain 7/10, 20:15 given morphine",
        "f/u 10-14 days",
        "RTC 12-16 weeks",
        "RBCs seen 10-20/hpf",
        "PMH: Gout, MI, DM",
        "Consults: Ortho, ID, GI",
        "T37 HR88 RR16 spine",
        "CD20 POS, CD19 NEG",
        "Interventional Radiology",
        "6 Minute Walk Test 350 m",
        "2 Femoral Neck fractures",
        "per MD 10000 units heparin",
        "Vent: A/C 16/450/5",
        "tPA 1430",
        "Hawkins/Neer positive",
        "Guillain Barre, Miller Fisher",
        "Edwards Sapien",
        # Short forms of tests and vaccines, alone, in lists, brackets and cells.
        "Labs: creatinine, Na, K, PT/INR, glucose",
        "Ordered LFTs, Cr, PT, PTT",
        "CRP, PT-INR",
        "Check TFTs / Trop / UOsm",
        "a marker (AFP), an antibody (ANA)",
        "diffusion (ADC) and perfusion",
        "| Na | 140 |\n| Dbili | 0.4 |\n| CEA | 3.1 |",
        "NTproBNP / HDLc, VitD",
        "visit for shots (Tdap / HPV)",
        "HepB / PedvaxHIB / Heplisav",
        "Abnormal: HDL, Total Cholesterol",
        "HPI, Review Of Systems",
    ],
)
def test_values_and_shorthand_stay(text: str, analyzer: PiiAnalyzer) -> None:
    assert masked(analyzer, f"{text}\n") == f"{text}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MR SMITH WAS GIVEN LASIX 40 MG IV", "MR [NAME] WAS GIVEN LASIX 40 MG IV"),
        ("WBC 12\nJan 5: afebrile", "WBC 12\n[DATE]: afebrile"),
        ("DOB: JULY 4, 1950", "DOB: [DATE]"),
        ("Seen 3/4 at 0830 pt fell", "Seen [DATE] at 0830 pt fell"),
        ("ELIZABETH JOHNSON", "[NAME]"),
        ("Smith, John 1234567", "[NAME] [MRN]"),
        ("Read by KLM", "Read by [NAME]"),
        ("Pt's wife keisha called; spoke w/rodriguez", "Pt's wife [NAME] called; spoke w/[NAME]"),
        ("Laura Blake dictating", "[NAME] dictating"),
        ("Ann Smith, PT, DPT", "[NAME], PT, DPT"),
        ("KIM-LEE, SOO", "[NAME]"),
        ("signed JSmith RN", "signed [NAME] RN"),
        ("(ANNA) | Amy |", "([NAME]) | [NAME] |"),
        ("H.No. 12-3, Lake Road", "[ADDRESS]"),
        ("Flat 3, 12 High Street", "[ADDRESS]"),
    ],
)
def test_names_and_dates_in_shorthand_go(text: str, expected: str, analyzer: PiiAnalyzer) -> None:
    assert masked(analyzer, text) == expected


# No list has the words of these languages.
FOREIGN = (
    "Am Anfang der Behandlung von Bluthochdruck steht meist: Bewegung. Dann folgen ACE-Hemmer.",
    "Kann Gürtelrose wiederkommen?",
    "Meiden Sie, was die Migräne auslöst. Klarheit bringt ein Blick auf die Haut.",
    "Le traitement de la Pneumonie Aiguë est un antibiotique. Quels Examens Complémentaires sont nécessaires ?",
    "El Tratamiento Inicial de la neumonía es un antibiótico. Después se hace una Radiografía Torácica.",
    "W leczeniu Zapalenia Płuc stosuje się antybiotyki. Jest to częsta choroba, która dotyczy także dzieci.",
)


@pytest.mark.parametrize("text", FOREIGN)
def test_words_of_another_language_are_no_names(text: str, analyzer: PiiAnalyzer) -> None:
    assert masked(analyzer, text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heute kam Sabine Müller mit Husten, der seit drei Tagen nicht besser wird.", "Heute kam [NAME] mit Husten"),
        ("Die Behandlung von Bluthochdruck wird nicht beendet. Frau Grünwald ist damit einverstanden.", "Frau [NAME] ist"),
        ("He was seen by Sabine Müller. Die Behandlung wird nicht geändert, da sie gut wirkt.", "seen by [NAME]."),
        ("Wie wird das behandelt? Auch bei Gicht nicht.\nSeen with Okonkwo, he was well.", "Seen with [NAME], he"),
    ],
)
def test_names_in_texts_of_other_languages_go(text: str, expected: str, analyzer: PiiAnalyzer) -> None:
    assert expected in masked(analyzer, text)
