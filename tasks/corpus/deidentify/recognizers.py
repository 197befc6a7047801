"""The rules: identifiers that labels, shapes and check digits give away.

A pattern's group ``span`` is the identifier; what stands before it only tells what it is.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import regex

from tasks.corpus.deidentify import ages, dates_and_places, facilities, names, note_names
from tasks.corpus.deidentify.lazy_pattern import LazyPattern
from tasks.corpus.deidentify.number_checks import IBAN, checks_as_npi, checks_as_vin, is_code, is_dialled, luhn_checks, whole_iban

SURE, LIKELY = 0.9, 0.6
# What a text must hold, a match or one of the words, for a pattern to be worth trying: most texts hold few.
Prefilter: TypeAlias = names.Words | None
# Letters and digits that can be a code of somebody's: a letter and two digits, with decimals, are one of ICD-10 or a vertebra.
_CODED = re.compile(r"\d{3}|[A-Z]\d(?!\d?(?:\.\d{1,2})?(?!\w|[.-]\w))|[A-Z][A-Z]\d|\d[A-Z]|\d[-./]\d+[-./]\d|[0-9a-f]{6}")
_DIGITS = dates_and_places.THREE_DIGITS
_HOUSES = re.compile(r"\b(?:Flat|Unit|Apt|Plot|Door|House|H)\.? ?(?:No\.?)? ?#?[\dA-Z]")
_DATED = re.compile(r"(?<![A-Za-z])(?<![A-Z]\d)\d[/.-]\d(?!\d? ?%)")  # no code of ICD-10, no percentages
_DOTTED, _COLONS = re.compile(r"\d\.\d+\.\d+\.\d"), re.compile(r":[0-9A-Fa-f]*:")
_AT, _DOT = re.compile(r"@|\(at\)|\[at\]|\sat\s"), re.compile(r"://|[wW]{3}\.|\.[a-z]{2,}")
# Between a label and its value: punctuation, and words such as "number is".
_JOIN = (
    r"(?:[ \t]*(?:[:#=.,()\[\]\"/|-]|(?i:\b(?:is|was|no|nr|num|number|id|identifier|code|on|file|ending|in|ref|type|card)\b)\.?)){0,5}"
    r"(?:[ \t]*+|(?<=[:#])[ \t]*\n[ \t]*+)"
)
# A label of a common word is one only with one of these behind it.
_MARK = r"\.?\s*(?:#|[:=]|(?i:\b(?:no\b\.?|num\b|number\b|id\b|identifier\b)))"
# Behind a number it says that the number was measured.
_UNIT = (
    r"(?![ \t]?(?:(?i:mg|mcg|µg|ug|g|kg|ml|l|dl|cc|mm|cm|m|ms|msec|sec|seconds?|mins?|minutes?|hours?|hrs?|days?|weeks?"
    r"|wks?|months?|years?|yrs?|mmol|meq|iu"
    r"|units?|mmhg|bpm|hz|khz|db|lbs?|oz|inch|inches|feet|ft|degrees?|times|x|patients|tabs?|tablets?|puffs?|drops?|doses?|cells?|k|per)\b|%|°|/[a-zA-Zµ]))"
)
_CODE = r"(?=[A-Z0-9./-]*\d)[A-Z0-9](?:[A-Z0-9]|[-./](?=[A-Z0-9])){2,}+(?:[ \t]\d{2,}[A-Z]?\b" + _UNIT + r"(?:-[A-Z0-9]+)*)*" + _UNIT
_DIALLED = r"\+?[\d(][\d() \t./-]{1,18}\d(?:[ \t]*(?:x|(?i:ext(?:ension)?)\.?)[ \t]*\d+)?(?!\d)"
_MEASURE = (
    r"\s(?:id|scan|template|record|file|card|hash|reference|ref|recognition|enrol\w*|identifier|number|signature|profile|print|vein"
    r"|biometric)\b"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_TOP = r"(?:com|org|net|edu|gov|info|biz|io|me|us|uk|co|de|fr|ca|eu|health)"
_V6 = r"(?:[0-9A-Fa-f]{1,4}:){2,7}(?:(?::?[0-9A-Fa-f]{1,4}){1,6}|:)|(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}|::[0-9A-Fa-f:]+"


@dataclass(frozen=True)
class Rule:
    """A pattern for identifiers of one type."""

    type: str
    pattern: re.Pattern[str] | regex.Pattern[str] | LazyPattern  # with a group "span"
    score: float = SURE
    holds: Callable[[str], bool] = bool  # of the text of the span
    prefilter: Prefilter = None
    refine: names.Refine | None = None  # which parts of the span are identifiers; None: all of it


def _labelled(
    type_: str, labels: str, value: str = _CODE, *, marked: str = "", score: float = SURE, holds: Callable[[str], bool] = is_code
) -> Iterable[Rule]:
    """A value behind one of its labels; ``marked`` are labels that need "number", "#" or the like to be one."""
    label = f"(?:{labels})" if labels else ""
    if marked:
        label = "|".join(part for part in (label, rf"(?:{marked}){_MARK}") if part)
    yield Rule(type_, re.compile(rf"(?i:(?<![\w/])(?:{label})(?![a-z])){_JOIN}(?P<span>{value})"), score, holds, prefilter=_CODED)


def _shaped(
    type_: str, pattern: str, holds: Callable[[str], bool] = bool, score: float = LIKELY, *, prefilter: Prefilter = _DIGITS
) -> Rule:
    return Rule(type_, re.compile(rf"(?P<span>{pattern})"), score, holds, prefilter=prefilter)


RULES: tuple[Rule, ...] = (
    *(
        Rule("NAME", name.pattern, name.score, prefilter=name.prefilter, refine=name.refine)
        for name in (*names.PATTERNS, *note_names.PATTERNS)
    ),
    *(Rule("FACILITY", pattern, 0.65, prefilter=prefilter, refine=refine) for pattern, prefilter, refine in facilities.PATTERNS),
    *(Rule("ADDRESS", pattern, LIKELY, prefilter=prefilter) for pattern, prefilter in dates_and_places.ADDRESSES),
    *(
        Rule("ADDRESS", pattern, LIKELY, prefilter=prefilter, refine=facilities.proper_names)
        for pattern, prefilter in dates_and_places.TOWNS
    ),
    *(Rule("ZIP", pattern, prefilter=dates_and_places.FIVE_DIGITS) for pattern in dates_and_places.ZIP_CODES),
    *(Rule("ZIP", pattern, prefilter=prefilter) for pattern, prefilter in dates_and_places.POSTCODES),
    Rule("ADDRESS", dates_and_places.ELSEWHERE, LIKELY, prefilter=_HOUSES),
    *(Rule("DATE", pattern, prefilter=_DATED) for pattern in dates_and_places.NUMERIC_DATES),
    Rule("DATE", dates_and_places.BARE_DAY, prefilter=_DATED, refine=dates_and_places.not_of_a_test),
    *(Rule("DATE", pattern, prefilter=dates_and_places.EIGHT_DIGITS) for pattern in dates_and_places.RUN_TOGETHER_DATES),
    *(Rule("DATE", pattern, prefilter=dates_and_places.MONTHS) for pattern in dates_and_places.WRITTEN_DATES),
    *(Rule("AGE", pattern, prefilter=ages.OVER_89) for pattern in ages.AGES),
    _shaped(
        "PHONE",
        r"(?<![\d.-])(?:\+?1[-. ]?)?(?:\(\d{3}\)\s?|\d{3}[-./ ])\d{3}[-. ]\d{4}(?:,?\s*(?:x|(?i:ext(?:ension)?)\.?)\s*\d+)?(?![\d-])",
    ),
    _shaped("PHONE", r"\+\d{1,3}(?:[ ./-]?\(?\d{1,10}\)?){2,6}", lambda text: sum(map(str.isdecimal, text)) >= 8),
    *_labelled(
        "PHONE",
        r"(?:tele)?phones?|tel(?: ?\(?[hmw]\)?)?|mob|(?:contact|caller'?s?|call back|phone|mobile|cell) (?:nos?"
        r"|numbers?)|direct line|hotline|ph|cell(?:ular)?|mobile|pager|pgr|pg|beeper|bleep|callback|contact number|call"
        r"|text"
        r"|reach\w*(?: \w+)?(?: at| on| via)?"
        r"|(?:home|work|office|direct|day|night|ward|desk)(?: line| number)?",
        _DIALLED,
        marked="T|C|H|W|O",
        score=LIKELY,
        holds=is_dialled,
    ),
    *_labelled(
        "PHONE",
        r"pagers?|beeper|bleep|callback|(?i:tele)?phone|tel|voicera|vocera|spectra(?:link)?|dect|(?:at|on|call|dial"
        r"|phone|,) ext(?:ension)?|ext|pgr|pg",
        r"\d{3,6}\b(?![-/.]\d)" + _UNIT,
        score=LIKELY,
        holds=bool,
    ),
    _shaped("PHONE", r"(?<![\w.])(?<!\d )x\d{4,5}\b|(?<!\w)[pP]\d{5}\b", prefilter=_CODED),
    *_labelled(
        "PHONE", r"(?:call|dial|phone|ext|desk|pager|page|number)(?: \w+)?(?: at| on)?", r"\d-\d{4}(?![\d-])", score=LIKELY, holds=bool
    ),
    # In a sentence about calling, and as they are written elsewhere: 020 7946 0958, 0412 345 678, (02) 9999 1234, 98765 43210.
    Rule(
        "PHONE",
        re.compile(
            r"(?i:\b(?:call|phone|tel|cell|reach\w*|contact|number|home|mobile|pager|beeper|fax|dial|text|voicemail|line"
            r"|line is)\b)[^.\n\d]{0,30}"
            rf"(?P<span>(?:\d{{3}}[-. ]\d{{4}}|\d{{5}} \d{{5}}))(?![\d-]|\.\d){_UNIT}"
        ),
        LIKELY,
        prefilter=_DIGITS,
    ),
    # With a zero behind the dash it is no range.
    _shaped("PHONE", r"(?<![\w.,/-])[2-9]\d{2}-0\d{3}(?![\d-]|\.\d)" + _UNIT),
    _shaped("PHONE", r"(?<![\d.,/-])(?:\(0\d{1,4}\)[ ]?|0\d{2,4}[ /-])\d{3,4}[ -]?\d{3,4}(?![\d-])" + _UNIT, is_dialled),
    *_labelled("FAX", r"(?:e-?|tele)?fax(?:ed)?|facsimile|fx", r"(?:\w+[ \t]+){0,2}?" + _DIALLED, marked="F", holds=is_dialled),
    _shaped("EMAIL", r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+", score=1.0, prefilter=_AT),
    _shaped("EMAIL", rf"(?<![\w.+-])[\w.+-]+\s?(?:\(at\)|\[at\])\s?[\w-]+(?:\.[\w-]+)*\.{_TOP}\b", score=1.0, prefilter=_AT),
    Rule(
        "EMAIL",
        re.compile(rf"(?i:\b(?:e-?mail|mail|address|reached?)\b)[^.\n]{{0,30}}?\s(?P<span>[\w.+-]+ at (?:[\w-]+\.)+{_TOP})\b"),
        prefilter=_AT,
    ),
    _shaped("SSN", r"(?<![\d-])(?!000|666|9\d\d)\d{3}-\d{2}-\d{4}(?![\d-])", score=0.8),
    _shaped("SSN", r"(?<!\w)[Xx*]{3}-[Xx*]{2}-\d{4}\b"),
    *_labelled(
        "SSN",
        r"ssn|s\.s\.n\.?|social security|soc(?:ial)?\.? ?sec(?:urity)?\.?|(?:patient's )?social|ss",
        r"(?:\d{3}[-. ]{0,3}\d{2}[-. ]{0,3}\d{4}|\d{4})\b",
        score=1.0,
        holds=bool,
    ),
    Rule("SSN", re.compile(r"(?i:\b(?:ssn|social security)\b)[^\n\d]{0,50}(?P<span>\d{3}[- .]\d{2}[- .]\d{4})(?!\d)"), prefilter=_DIGITS),
    *_labelled(
        "MRN",
        r"m\.?r\.?n\.?|mr(?= ?#)|med(?:ical)?\.? rec(?:ord)?s?\.?|emr|ehr|epi|uhid|ip no|op no|ipd|opd|pas|crn"
        r"|pat(?:ient)?\.?[- ]?(?:nr|no)|fall(?:nummer|-?nr)|hospital id|hosp id|pid|nhs number|nhs no|u?mrn|urn?|nhi"
        r"|csn|har|har/csn|k-?number|brn|ihi|nhs|hn|opd no|uhid|chi|empi|umr|hosp(?:ital)?\.? (?:no|number)|unit (?:no|number|#)",
        marked=r"chart|record|patient|pt|hospital|hosp|file|unit",
    ),
    *_labelled("MRN", r"(?:patient|pt) id(?:entifier)?"),
    Rule("MRN", re.compile(r"MRN(?P<span>\d{5,12})\b"), prefilter=re.compile("MRN")),
    Rule("MRN", re.compile(r"\|[ \t]*(?P<span>\d{7,10})[ \t]*(?=\||\n|$)"), LIKELY, prefilter=re.compile(r"\|[ \t]*\d{7}")),
    *_labelled("MRN", r"m\.r\.|mr|mr#|cr|umr|hrn", r"\d{5,10}(?:-\d)?(?![\d.])"),
    Rule(
        "MRN",
        regex.compile(
            r"\p{Lu}[\p{L}'’-]+,[ ]?\p{Lu}[\p{L}'’-]+(?:[ ]\p{Lu}\.?)?[ ]?(?:[(](?P<span>\d{6,10})[)]|[ "
            r"|]+(?P<span>\d{6,10})(?![\d./-]))"
        ),
        prefilter=_DIGITS,
    ),
    Rule("MRN", re.compile(r"(?:^|\n)[ \t]*[(](?P<span>\d{7,10})[)]"), LIKELY, prefilter=_DIGITS),
    *_labelled(
        "PLAN",
        r"mbi|hicn?|medicare|medicaid|medi-cal|rxbin|rxid|health (?:plan|insurance)(?: member)?|beneficiary|blue "
        r"(?:cross|shield)|bcbs|aetna|cigna|humana|uhc|united ?healthcare|tricare|payer id|dva|bupa|axa|aviva|medibank"
        r"|ohip|ramq|philhealth|nhif|nhis|policy|nib|hcf|vitality|aok|barmer|tk|kv-?nr|versicherten-?(?:nr|nummer)|membership|irn"
        r"|insur(?:ance|ed'?s?)(?: policy)?(?: id)?|certificate of insurance|insurance: \w+",
        marked=r"member|membership|tpa|insurance|insurer|subscriber|policy|group|grp|plan|ins|payer",
    ),
    *_labelled(
        "ACCOUNT",
        r"acc(?:oun)?t|a/c (?:no|number)|bank account|iban|har|fin|csn|routing|credit card|debit card|card|financial"
        r"|guarantor|claim(?= \d{5})",
        marked=r"billing|invoice|statement|claim|patient account|bill|visit|enc|encounter",
    ),
    Rule(
        "ACCOUNT",
        re.compile(r"\b(?P<span>(?!1\d{12}(?!\d))(?:4\d{3}|5[0-5]\d{2}|6\d{3}|1\d{3}|3\d{3})[- ]?\d{3,4}[- ]?\d{3,4}[- ]?\d{3,5})\b"),
        score=1.0,
        holds=luhn_checks,
        prefilter=_DIGITS,
    ),
    Rule("ACCOUNT", IBAN, score=1.0, prefilter=re.compile(r"[A-Z]{2}\d{2}[ -]?[A-Z\d]{4}"), refine=whole_iban),
    *_labelled(
        "LICENSE",
        r"dea(?: registration)?|(?:driv\w+'?s?|operator'?s?|medical|state|rn|nursing|physician|pharmacist)(?:'s)? licen[cs]e|licen[cs]e"
        r"|gdc|goc|imc(?: reg)?|hpcsa(?: mp)?|cpso|nmbi|mdcn|prc|pmdc|hcpc|gphc|clia|gmc|cdl|ahpra|nmc|upin",
        marked=r"lic|certificate|certification|registration number",
    ),
    *_labelled("LICENSE", r"d\.?l\.?|lic\.?", r"[A-Z]{0,3}(?:\d{5,}[A-Z0-9-]*|\d{3,4}-\d{3,4}-\d{3,5}(?:-\d+)*)", holds=bool),
    *_labelled("NPI", r"n\.?p\.?i\.?|national provider|provider|physician", r"\d{10}\b", score=1.0),
    _shaped("NPI", r"(?<![\d.-])[12]\d{9}(?![\d.-]\d|\d)", checks_as_npi),
    _shaped("VEHICLE", r"\b[A-HJ-NPR-Z0-9]{17}\b", checks_as_vin, SURE, prefilter=_CODED),
    # Plates of the United Kingdom, India and Germany: AB12 CDE, KA 01 AB 1234, M-AB 1234.
    _shaped(
        "VEHICLE",
        r"(?<![\w-])(?:(?!CD|HR|RR|BP|SR|PT|PR|EF|WT|HT)[A-Z]{2}\d{2}[ ]?(?!POS|NEG|RRR|REG)[A-Z]{3}"
        r"|[A-Z]{2}[ -]\d{1,2}[ -][A-Z]{1,2}[ -]\d{4}|[A-ZÄÖÜ]{1,3}-[A-Z]{1,2}[ ]\d{2,4})(?![\w-])" + _UNIT,
        prefilter=_CODED,
    ),
    *_labelled("VEHICLE", r"vin|vehicle|chassis", r"[A-HJ-NPR-Z0-9]{17}\b", score=1.0),
    *_labelled(
        "VEHICLE",
        r"(?:licen[cs]e |lic\.? |number )?plates?|car registration|registration|vehicle tag|tag|reg(?:o| no)?"
        r"|kennzeichen|vehicle|car|taxi|ambulance",
        r"(?:[A-Z]{2} )?(?=[A-Z0-9 -]*\d)(?=[A-Z0-9 -]*[A-Z])[A-Z0-9]{2,4}[- ]?[A-Z0-9]{2,5}\b",
    ),
    *_labelled(
        "DEVICE",
        r"s/n|s\.n\.|sn|lot/serial|controller|transmitter(?: id)?|pump id|generator|ser(?:ial)?\.?(?: no| number)|serial"
        r"|udi|imei|gtin|device id(?:entifier)?|asset tag",
        r"(?:\(01\)\d{14}(?:\(\d\d\)[A-Z0-9]+)*|" + _CODE + ")",
        marked=r"lot|device|model|implant(?: lot| serial)?",
    ),
    *_labelled(
        "DEVICE", r"ref/lot|lot/ref|(?:prosthesis|implant|stent|graft|lead|generator|valve|catheter) ref", _CODE + r"(?:/[A-Z0-9-]{4,})?"
    ),
    *_labelled("DEVICE", r"lot", r"(?=[A-Z0-9-]*\d{3})[A-Z0-9][A-Z0-9-]{3,}" + _UNIT),
    *_labelled("DEVICE", r"ref(?=[ \t]?[#:]| no)", r"(?=[A-Z0-9-]*\d{3})(?=[A-Z0-9-]*(?:[A-Z]|\d{6}))[A-Z0-9][A-Z0-9-]{3,}" + _UNIT),
    _shaped("DEVICE", r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b", score=0.95, prefilter=_COLONS),
    _shaped("URL", r"\b(?:https?|s?ftp)://[^\s<>\"]*[^\s<>\".,;:!?)\]']", score=0.95, prefilter=_DOT),
    _shaped("URL", r"(?i:\bwww\.)[^\s<>\"]*[^\s<>\".,;:!?)\]']", prefilter=_DOT),
    _shaped("URL", rf"(?<![@\w.-])(?:[A-Za-z0-9_-]+\.)+{_TOP}\b(?:/[^\s<>\"]*[^\s<>\".,;:!?)\]'])?", prefilter=_DOT),
    _shaped("IP", rf"(?<![\d.])(?<!EC )(?<!EC:)(?<!C\. ){_OCTET}(?:\.{_OCTET}){{3}}(?![\d.]*\d)(?:[:/]\d+)?", prefilter=_DOTTED),
    _shaped("IP", rf"(?<![\w:])(?:{_V6})(?![\w:])", lambda text: text.count(":") > 2 and any(map(str.isdecimal, text)), prefilter=_COLONS),
    *_labelled(
        "BIOMETRIC",
        rf"(?:finger ?prints?|voice ?prints?|biometrics?)(?:{_MEASURE})*"
        rf"|(?:retinal?|iris|facial|face|palm|gait|dna|fp|voice)(?:{_MEASURE})+",
        rf"(?:{_CODE}|(?=[0-9a-f]*\d)[0-9a-f]{{6,}})\b",
        score=1.0,
    ),
    *_labelled(
        "OTHER",
        r"accession|acc|requisition|enrol+ment|passport|subject|encounter|pathology case|surgical case|job|confirmation"
        r"|document id|dictation id|csn"
        r"|nin|cnic|mykad|nric|ppsn?|bvn|aadhaar|aadhar|sa id|cad incident|incident|run no|claim adj file|wc|order "
        r"number|voice job|transcription id|report id|exam id",
        marked=r"study|specimen|visit|case|employee|order|sample|reference|prescription|rx|participant|lab|badge|student|ticket|military|protocol"
        r"|dictation|transcription|document|job|claim",
        score=0.7,
        holds=is_code,
    ),
    # "Run # 20-12345", "Auth No. 88213407": a word, what says that a number follows, and one of five digits or more.
    Rule(
        "OTHER",
        re.compile(
            rf"(?i:\b(?!pmid|pmcid|doi|nct|rxnorm|snomed|loinc|icd|cpt|omim|orpha|mim)[a-z]{{2,}}[. ]?[ ]?(?:#|no\b[.:]"
            rf"|id\b[.:#]?|no\. ?:?))[ ]?[:#]?[ ]?(?P<span>(?=(?:[A-Z-]*\d){{5}}){_CODE})"
        ),
        LIKELY,
        is_code,
        _CODED,
    ),
    Rule("OTHER", re.compile(rf"(?<![\w#])#[ ]?(?P<span>\d{{6,12}})\b{_UNIT}"), LIKELY, prefilter=_DIGITS),
    *_labelled("OTHER", r"accession|acc|specimen|case", r"\d{2}:[A-Z]{0,2}\d{4,}", holds=bool),
    # Numbers of specimens and cases: S19-12345, SP-21-0045, 19-SP-123456.
    _shaped("OTHER", r"(?<![\w-])(?!B12)(?!COVID)[A-Z]{1,3}-?\d{2}-\d{4,8}(?![\w-])" + _UNIT, prefilter=_CODED),
    _shaped("OTHER", r"(?<![\w-])\d{2}-[A-Z]{1,3}-\d{4,8}(?![\w-])", prefilter=_CODED),
)
# Prefilters that a text without a digit does not pass.
NEED_DIGITS = frozenset(
    (
        *(_CODED, _DIGITS, _DATED, _DOTTED, _HOUSES, dates_and_places.FIVE_DIGITS, dates_and_places.EIGHT_DIGITS),
        *(
            rule.prefilter
            for rule in RULES
            if rule.type in ("DATE", "MRN", "OTHER", "PHONE", "SSN", "ZIP") and not isinstance(rule.prefilter, frozenset)
        ),
    )
)
