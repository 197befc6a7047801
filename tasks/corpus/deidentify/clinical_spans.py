"""Finds what is clinical in a text and must outlive cleaning: values, headings, names of drugs, of parts of the body and of signs, layout.

The patterns need a label, a unit or a context, so that what they find is hardly ever an identifier. What they do not find is not measured.
Each one reads a line at a time and has bounded repeats, so that the time grows with the text alone.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from tasks.corpus.deidentify.allowlist import EPONYMS

WEAK = frozenset({"range", "score", "quantity", "decimal"})  # without a label; a part of an identifier may look like one

_CONTEXT = 60  # characters before a value, in its line, that may say what it is
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,6})(?:\.\d{1,4})?"
_END = r"(?![\d/]|[.,]\d|-\d)"  # behind a number that is whole, and no part of a date or a code
_UNIT = (
    r"(?:mcg|[µμu]g|mg|kg|ng|pg|g|grams?|gm|mL|ml|ML|cc|dL|L|lit(?:er|re)s?|[mµμu]?mol|mEq|[mk]?IU|units?|mm ?Hg|mm|cm|bpm|BPM"
    r"|lbs?\.?|pounds?|oz|ounces?|inches|feet|kcal|c?Gy|ms|m/s|[mµμu]V|Hz|kPa|cm ?H2O|percent|%|°\s?[CF]|degrees|tab(?:let)?s?"
    r"|cap(?:sule)?s?|puffs?|drops?|gtts?|sprays?|patch(?:es)?|[CF](?=[\s,.;)]|$)"
    r"|(?:min(?:ute)?|h(?:ou)?r|day|week|month|year)s?(?![- ](?:old|of age)))"
    r"(?:\s?/\s?(?:[dµμu]?L|ml|mL|kg|m2|m²|min|hpf|HPF|mm3|dose|day|hr?|24 ?hr?s?|\d{1,3} ?mL)\b){0,2}(?![A-Za-z])"
)
# Between a label and its value: words such as "was noted to be", signs, blanks.
_JOIN = (
    r"(?:[ \t]?(?:levels?|counts?|was|is|has been|in|of|at|to|today|around|noted|elevated|greater|less|than|about|only|below|L|R|[=:,|-]"
    r"|[ \t]))"
    r"(?:[ \t]?(?:was|is|of|at|to|be|in|office|today|noted|elevated|greater|less|than|about|around|over|[=:|<>≤≥~]|[ \t])){0,7}"
)
_LABS = (
    r"(?:(?i:sodium|potassium|chloride|bicarb(?:onate)?|glucose|creatinine|calcium|magnesium|phosph(?:ate|orus)|albumin|bilirubin|lactate"
    r"|ha?emoglobin(?: a1c)?|ha?ematocrit|platelets?|triglycerides|cholesterol|ferritin|troponin(?: [it])?|ammonia|lipase|amylase|urea"
    r"|uric acid|fibrinogen|procalcitonin|white (?:blood )?cells?|red (?:blood )?cells?|white count|neutrophils|lymphocytes|eosinophils"
    r"|sed rate|a1c|hba1c|hgba1c|transferrin|folate|cortisol|protein|alk phos|anion gap|osmolality|vitamin (?:d|b-?12))"
    r"|Na|K|Cl|CO2|HCO3|BUN|Cr|Ca|Mg|Phos|WBC|RBC|Hgb|Hb|HGB|Hct|HCT|Plt|PLT|MCV|MCHC?|RDW|INR|PTT?|aPTT|ESR|CRP|TSH|T4|T3|LDL|HDL|AST|ALT"
    r"|ALP|GGT|LDH|CK(?:-MB)?|BNP|PSA|e?GFR|TIBC|pCO2|pO2|PaO2|PaCO2|A-a|SvO2|FiO2|INR\(PT\)|AFP|CEA|hCG|D-dimer|IgG|IgA|IgM|Cre)"
)
_VITALS = (
    r"(?:(?i:blood pressure|heart rate|resp(?:irat(?:ory|ions?))?(?: rate)?|pulse(?: rate| ox)?|temp(?:erature)?|weight|height"
    r"|o2 sat(?:uration)?s?|oxygen saturation|saturation|body mass index|head circumference)"
    r"|BP|HR|RR|T|Tmax|Temp|TEMP|P|R|S[pa][oO]2|O2|Wt|WT|Ht|HT|BMI|MAP|CVP|ICP|IOP)"
)
_NERVES = r"(?i:(?:distal |sensory |motor )?latency|amplitude|conduction(?: velocity)?|\bDL|\bPL|\bN?CV|\bSNAP|\bCMAP|\bMUP|\bonset|\bpeak)"
_FLUIDS = (
    r"(?i:urine output|\bUOP|\bI\s?[/&]\s?O|intake|output|\bEBL|blood loss|drain(?:age)?|\bPO|\bJP|fluids?"
    r"|transfus\w{1,4}|voided|\bin|\bout)"
)
_SCALES = re.compile(
    r"(?i:strength|power|motor|gcs|coma|apgars?|pain|scores?|scored|scale|severity|intensity|rat(?:ed?|es|ing)|reflex(?:es)?|pulses|murmur"
    r"|mmse|moca|systolic|grade|stage|visual acuity|oxford|asa|nyha|ecog|karnofsky|quadriceps|biceps|triceps|flexion|extension|abduction"
    r"|adduction|grip|deltoids?|dorsiflexion|plantarflexion|iop|breaths?|bilaterally)\b"
)
_OF_PREGNANCY = re.compile(r"(?i:gestation|pregnan|\bE?GA\b|\bEGA|IUP|born at|delivered at|preterm|term infant|ex-$)")
_NO_VALUE = re.compile(
    r"(?i:\b(?:phone|tel|fax|ext|mrn|id|no|number|version|section|chapter|table|figure|fig|dated?|on|icd|code|account|acct|page|room|dob|seen"
    r"|license|lic|serial|job|visit|accession|zip)\b[\s.:#]{0,3}$)"
)
_ROUTE = (
    r"(?i:p\.?o\.?|iv|im|sc|sq|subq|sl|pr|pv|inh|oral(?:ly)?|by mouth|daily|nightly|b\.?i\.?d|t\.?i\.?d|q\.?i\.?d|qhs|qam|qpm|qd"
    r"|q\s?\d{1,2}\s?h|prn|once|twice|every|each|at bedtime|weekly|a day|three times|per day)\b"
)


@dataclass(frozen=True, slots=True)
class ClinicalSpan:
    """What must stay: the characters of a text from ``start`` to ``end``, of a type of ``policy.CLINICAL``."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    type: str
    pattern: re.Pattern[str]
    context: re.Pattern[str] | None = None  # what the line must hold before a match


_VALUE_PATTERNS = (
    _Pattern("ph", re.compile(r"\bpH[\s:=,|]{0,3}(?:is|was|of)?\s?[<>]?\s?[4-8](?:\.\d{1,2})?(?:\s?-\s?[4-8]\.\d{1,2})?" + _END)),
    _Pattern("vital", re.compile(rf"(?<![\w-]){_VITALS}\b{_JOIN}\d{{2,3}}\s?/\s?\d{{2,3}}(?:\s?mm ?Hg)?(?![\d/])")),
    _Pattern("vital", re.compile(rf"(?<![\w-]){_VITALS}\b{_JOIN}{_NUMBER}{_END}(?:\s?{_UNIT})?")),
    _Pattern("lab", re.compile(rf"(?<![\w-]){_LABS}(?![\w-]){_JOIN}{_NUMBER}{_END}(?:\s?{_UNIT})?(?:\s{{1,2}}[HL](?!\w))?")),
    _Pattern("latency", re.compile(rf"{_NERVES}\b[^\d\n]{{0,30}}{_NUMBER}\s?(?:ms(?:ec)?|m/s|[mµμu]V)\b")),
    _Pattern("intake_output", re.compile(rf"{_FLUIDS}\b[^\d\n.;]{{0,30}}{_NUMBER}\s?(?:mL|ml|ML|cc|L)\b")),
    _Pattern("intake_output", re.compile(r"\bI\s?[/&]\s?O['’]?s?\b[^\d\n]{0,12}\d{2,5}\s?/\s?\d{2,5}(?![\d/])")),
    _Pattern(
        "gestational_age", re.compile(r"(?<![\d/.-])[1-4]\d\s?(?:\+\s?[0-6](?:/7)?|\s[0-6]/7|w[0-6]d)(?:\s?(?:weeks?|wks?))?(?![\d/])")
    ),
    _Pattern("gestational_age", re.compile(r"(?<![\d/.-])[1-4]\d[ -]?(?:weeks?|wks?)\b(?:\s(?:and\s)?[0-6]\s?days?\b)?"), _OF_PREGNANCY),
    _Pattern("gestational_age", re.compile(r"\bG\d{1,2}\s?P\d{1,4}\b")),
    _Pattern(
        "range",
        re.compile(
            rf"(?i:\b(?:ref(?:erence)?|normal|nl|range|target|goal)\b(?:\s(?:range|values?))?)[\s:.,(\[]{{0,3}}{_NUMBER}\s?[-–]\s?{_NUMBER}{_END}"
        ),
    ),
    _Pattern("range", re.compile(rf"[(\[]{_NUMBER}\s?[-–]\s?{_NUMBER}[)\]]")),
    _Pattern(
        "score", re.compile(r"(?<![\d/.-])\d{1,2}[+-]?\s?(?:/|out of|of)\s?(?:[1-9]|1\d|[234]0|30|100)[+-]?(?![\d/]|[.,]\d)"), _SCALES
    ),
    _Pattern(
        "score", re.compile(r"(?<![\d/.-])[0-5][+-]?/[56][+-]?(?=\s(?:strength|power|throughout|bilaterally|systolic|in all|murmur))")
    ),
    _Pattern("score", re.compile(r"(?<![\d/.-])(?:[0-5]\+|20/\d{2,3})(?![\d/])"), _SCALES),
    _Pattern(
        "score",
        re.compile(r"\b(?:GCS|NIHSS|MMSE|MoCA|PHQ-?9|GAD-?7|CHA2DS2-VASc|MELD|Apgars?|APGAR)\b[\s:=]{0,2}(?:of|was|is)?\s?\d{1,2}\b"),
    ),
    _Pattern("dose", re.compile(rf"{_NUMBER}(?:\s?[-–]\s?{_NUMBER})?\s?{_UNIT}\s{_ROUTE}")),
    _Pattern("dose", re.compile(r"(?<![\d/])(?:\d\s)?[1-3]/[234]\s(?:tab(?:let)?s?|pills?|cap(?:sule)?s?)\b")),
    _Pattern("quantity", re.compile(rf"(?<![\w.,/-]){_NUMBER}(?:\s?(?:-|–|to|x|×)\s?{_NUMBER}){{0,2}}[\s-]?{_UNIT}")),
    _Pattern("decimal", re.compile(rf"(?<![\d./-])(?<=[A-Za-z%)][\s:=,|])[<>≤≥]?\d{{1,4}}\.\d{{1,3}}{_END}")),
    _Pattern("decimal", re.compile(rf"\b(?:is|was|of|at|to|[:=])\s[<>≤≥]?\d{{1,4}}\.\d{{1,3}}{_END}")),
)

_SECTION = frozenset(
    "abdomen abdominal abg activity addendum admission admitting advance allergic allergies allergy anesthesia appearance assessment "
    "assessments background blood bp brief cardiac cardiology cardiovascular care cbc cc chem chemistry chest chief clinical code "
    "comparison complaint complaints complications concern concerns conclusion conclusions condition constitutional consult "
    "consultation consults contrast course culture cultures current cv data derm dermatologic diagnosed diagnoses diagnosis "
    "diagnostic diagnostics diet discharge disposition dx ecg echo education ekg emg encounter encounters endo endocrine ent "
    "estimated evaluation events exam examination extremities eyes family feeding fen findings fluids follow follow-up followup "
    "function functional gait gastrointestinal general genitourinary gi goals gu gyn head heart heent hematologic heme history hiv "
    "home hospital hospitalization hpi id imaging immunization immunizations impression indication indications infectious information "
    "instructions integumentary interim interpretation interval intervention interventions investigations lab laboratory labs lines "
    "lungs lymph management medical medication medications meds mental mouth mri msk musculoskeletal narrative nausea neck neuro "
    "neurologic neurological neurology newborn nose nursing nutrition ob objective observations obstetric occupation operation "
    "operative oral orders outcome overview oxygen pain past pathology pe pelvis physical plan pmh pmhx postoperative preoperative "
    "present presentation prior priority problem problems procedure procedures prognosis prophylaxis psh psych psychiatric "
    "psychological pulm pulmonary pulse reaction reason recommendation recommendations rectal renal resp respirations respiratory "
    "result results review ros screening sedation sensation sensory sh sincerely skin social specimen status strength studies study "
    "subjective summary surgeries surgery surgical symptoms systems technique temp temperature test tests therapy throat time "
    "treatment treatments ua ultrasound urinalysis vaccination vaccines vascular ventilation vital vitals vs weight wound "
    "x-ray xray".split()
)
_SHORT_TITLES = ("A/P", "A&P", "S", "O")
_HEADING = re.compile(r"^[ \t]*(?:[-•*#]{1,3}[ \t]*|\d{1,2}[.)][ \t]*)?(?P<title>[A-Z][A-Za-z /&'’(),-]{0,58}?)[ \t]*(?P<end>:|$)", re.M)
_WORD = re.compile(r"[A-Za-z][A-Za-z-]*[A-Za-z]")
_ANATOMY = re.compile(
    r"(?<![\w-])(?i:(?:(?:left|right|lt|rt|bilateral|upper|lower)\s(?:(?:upper|lower|middle|lateral|medial|anterior|posterior)\s)?"
    r"(?:extremit(?:y|ies)|arm|leg|foot|feet|hand|hip|knee|eye|ear|breast|lobe|quadrant|side|ankle|wrist|shoulder|elbow|lung|kidney|thigh|calf)"
    r"|abdomen|abdominal|aorta|aortic|appendix|bladder|bowel|brainstem|bronchus|carotid|cerebell(?:um|ar)|cerebral|cervix|chest|clavicle|colon"
    r"|cornea|coronary|duodenum|esophagus|femoral|femur|fibula|gallbladder|gastric|hepatic|humerus|ileum|jejunum|jugular|kidneys?|knees?|larynx"
    r"|liver|lumbar|lungs?|mediastinum|mitral|myocardi(?:um|al)|neck|ovar(?:y|ies)|pancreas|patella|pelvi[sc]|pharynx|pleura[l]?|prostate"
    r"|pulmonary|radius|rectum|renal|retina|sacr(?:um|al)|scapula|scrotum|shoulders?|sigmoid|sinuses|spine|spleen|sternum|stomach|thoracic"
    r"|thorax|thyroid|tibia|tonsils?|trachea|tricuspid|ulna|ureters?|urethra|uterus|ventric(?:le|ular)|wrists?)"
    r"|(?:[CT]\d{1,2}|[LS][1-5])[-/](?:[CTLS]?\d{1,2}))(?![\w-])"
)
_CAPITALIZED = re.compile(r"(?<![\w'’-])[A-Z][\wà-ÿ-]{2,}(?:['’]s)?")
# Names of signs and devices, which hardly anybody has, or which hardly ever mean a person in a note.
_SIGNS = frozenset(
    "achilles apgar babinski brudzinski doppler foley gram hawkins hoffmann holter homans kernig lachman lisfranc mcburney mcmurray "
    "neer pap phalen romberg spurling swan-ganz tinel trendelenburg valsalva wernicke".split()
)
_THING = re.compile(
    r"(?:\s\w+){0,1}[\s-](?:disease|syndrome|signs?|test|palsy|phenomenon|lymphoma|sarcoma|tumou?r|an?aemia|ataxia|dystrophy|dementia|criteria"
    r"|scale|score|catheter|fracture|hernia|contracture|chorea|thyroiditis|nephritis|encephalopathy|reflex|procedure|malformation|esophagus"
    r"|esophagitis|positive|negative|maneuver|tendon|canal|smear)\b"
)
_TITLE = re.compile(r"(?i:\b(?:mrs?|ms|miss|dr|doctor|prof|professor|nurse)\b\.?\s{1,2}(?:[A-Z][\w.'’-]*\s){0,2})$")
_ROW = re.compile(r"[^|]*\S[^|]*(?:[ \t]\|[^|]*)+")
_GAP = re.compile(r"(?<=[^\s.?!:;])(?:\t+ *| {2,}\t* *)(?=\S)")


def find_spans(text: str, drugs: Container[str] = frozenset()) -> list[ClinicalSpan]:
    """All clinical spans of a text, sorted; ``drugs``: their names in lower case. Values do not overlap each other."""
    spans = [*_values(text), *_headings(text), *_words(text, drugs), *_layout(text)]
    return sorted(spans, key=lambda span: (span.start, span.end, span.type))


def is_of_a_person(text: str, start: int) -> bool:
    """Whether a title stands before a word, which is then somebody's name."""
    return bool(_TITLE.search(text, max(0, start - 40), start))


def gaps(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Where columns of a line are apart: tabs or two blanks and more, but not behind the end of a sentence."""
    return [match.span() for match in _GAP.finditer(text, start, end)]


def _values(text: str) -> Iterator[ClinicalSpan]:
    taken = bytearray(len(text))
    for pattern in _VALUE_PATTERNS:
        for match in pattern.pattern.finditer(text):
            start, end = match.span()
            if any(taken[start:end]) or not _is_value(text, start, pattern):
                continue
            taken[start:end] = b"\1" * (end - start)
            yield ClinicalSpan(start, end, pattern.type)


def _is_value(text: str, start: int, pattern: _Pattern) -> bool:
    """Whether the line before a match has the context that the pattern needs, and does not say that it is no value."""
    line = text.rfind("\n", 0, start) + 1
    before = text[max(line, start - _CONTEXT) : start]
    if pattern.type in WEAK and _NO_VALUE.search(before):
        return False
    return pattern.context is None or bool(pattern.context.search(before))


def _headings(text: str) -> Iterator[ClinicalSpan]:
    """Titles that have a line of their own in capitals, or a colon behind them, and hold a word that sections are called by."""
    for match in _HEADING.finditer(text):
        title = match["title"]
        known = title in _SHORT_TITLES or any(word.casefold() in _SECTION for word in _WORD.findall(title))
        if known and (match["end"] or title.isupper()):
            yield ClinicalSpan(match.start("title"), match.end("title"), "heading")


def _words(text: str, drugs: Container[str]) -> Iterator[ClinicalSpan]:
    yield from (ClinicalSpan(*match.span(), "anatomy") for match in _ANATOMY.finditer(text))
    for match in _CAPITALIZED.finditer(text):
        word = re.sub(r"['’]s$", "", match.group()).casefold()
        after_it = match.group()[-2:] in ("'s", "’s") or _THING.match(text, match.end())
        is_thing = word in _SIGNS or (word in EPONYMS and after_it)
        if is_thing and not is_of_a_person(text, match.start()):
            yield ClinicalSpan(*match.span(), "eponym")
    if drugs != frozenset():
        yield from (ClinicalSpan(*m.span(), "drug") for m in _WORD.finditer(text) if len(m.group()) > 3 and m.group().casefold() in drugs)


def _layout(text: str) -> Iterator[ClinicalSpan]:
    """Rows, which have cells between bars, tabs or runs of blanks; and columns, which have the latter two."""
    for match in re.finditer(r"[^\n]+", text):
        line = match.group()
        start = match.start() + len(line) - len(line.lstrip())
        end = match.start() + len(line.rstrip())
        if start >= end:
            continue
        columns = gaps(text, start, end) if "  " in line or "\t" in line else []
        has_columns = len(columns) >= 2 or any("\t" in text[a:b] for a, b in columns)
        if has_columns or (" |" in line and _ROW.match(line)):
            yield ClinicalSpan(start, end, "row")
        if has_columns:
            yield ClinicalSpan(start, end, "columns")
