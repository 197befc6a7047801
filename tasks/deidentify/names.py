"""Names of people that something near them gives away: a title, a role, kin, a degree, the form of a letter."""

import re

# Capitalized words that open a sentence or name a place or a thing where a name might stand.
_NO_NAMES = (
    "the a an this that these those he she it they we i you in on at of for from with and or but if as to no not yes his her their our my "
    "patient patients doctor nurse nurses physician department clinic hospital emergency unit center centre medical health care service "
    "services history date name address phone fax email dob mrn ssn age sex male female none unknown see please discharge admission "
    "diagnosis disease syndrome disorder type stage grade group name names icd who fda cdc nih va us usa uk dr mr mrs ms md do np rn "
    "practitioner practitioners surgery surgeon medicine pediatrics cardiology oncology neurology radiology pathology unit id number "
    "january february march april may june july august september october november december monday tuesday wednesday thursday friday "
    "saturday sunday interpreter sincerely regards"
)
_WORD = r"(?:[A-Z]['’])?[A-Z][a-zà-öø-ÿ]+(?:['’-]?[A-Z][a-zà-öø-ÿ]+)*|[A-Z]{2,}(?:['’-][A-Z]+)*"
_PART = rf"(?!(?i:{_NO_NAMES.replace(' ', '|')})\b)(?:{_WORD}|[A-Z]\.?(?![a-z]))"
# "Ann B. Smith", "Smith, Ann B." and "A. Smith", within a line.
_FULL = rf"{_PART}(?:[ \t]+{_PART}){{0,3}}"
_LISTED = rf"(?:{_WORD})(?:[ -](?:{_WORD}))?,[ \t]+{_PART}(?:[ \t]+[A-Z]\b\.?)?"
_ANY = rf"(?:{_LISTED}|{_FULL})"
_DEGREE = r"(?:M\.?D|D\.?O|N\.?P|P\.?A(?:-C)?|R\.?N|Ph\.?D|D\.?D\.?S|D\.?P\.?M|LCSW|FACS|FACP|CRNA|MBBS|FRCP|RDN?|PharmD)\b"
_KIN = (
    r"husband|wife|spouse|partner|son|daughter|mother|father|mom|dad|sister|brother|aunt|uncle|niece|nephew|cousin|grand(?:mother|father|"
    r"son|daughter)|guardian|fiancée?|boyfriend|girlfriend|neighbou?r|caregiver|friend"
)
_ROLE = (
    r"patient(?:'s)? name|pt(?:\.|(?= name))? name|(?:mother|father|guarantor|subscriber|contact|provider|physician)(?:'s)? name"
    r"|full name|name|(?:referring|attending|ordering|primary care|consulting|admitting|treating|family|covering|emergency) "
    r"(?:physician|provider|doctor|md|contact)"
    r"|attending|surgeon|anesthesiologist|resident|pcp|gp|next of kin|nok|emergency contact"
    r"|(?:electronically |digitally )?signed(?: by)?|dictated by|transcribed by|reviewed by|authenticated by|verified by|reported by"
    r"|seen by|performed by|attn|cc|re|regarding|patient|pt|interpreter|case manager|social worker|therapist|pharmacist"
    r"|midwife|nurse|technician"
)

_BEFORE_DEGREE = re.compile(_DEGREE)
_DESCRIPTION = r"(?:is|was) an? (?:very )?(?:pleasant|lovely|delightful|elderly|young|right-handed|\d+[- ]y)"
_DESCRIBED = re.compile(rf"\b{_DESCRIPTION}")

_TITLES = frozenset("dr drs mr mrs ms miss mx prof professor sir rev".split())
_PEOPLE = frozenset("pt nurse interpreter manager worker therapist pharmacist primary attending resident surgeon colleague".split())
_KINS = frozenset(re.findall(r"\w+", _KIN)) | {"grandmother", "grandfather", "grandson", "granddaughter", "neighbor", "neighbour", "fianc"}
_LETTERS = frozenset("sincerely regards truly wishes respectfully referring discussed spoke seen signed dear".split())

# Each with a group "found", how sure it is, and what a text must hold for it to be worth trying.
PATTERNS = (
    (re.compile(rf"(?<![\w/-])(?:Drs?|Mrs?|Ms|Miss|Mx|Prof|Professor|Sir|Rev)\b\.?[ \t]+(?P<found>{_FULL})"), 0.8, _TITLES),
    (re.compile(r"(?<![\w/-])(?:DR|MRS?|MS|MISS)\b\.?[ \t]+(?P<found>[A-Z]{2,}(?:['’-][A-Z]+)*(?:,?[ \t]+[A-Z]+\b){0,2})"), 0.7, _TITLES),
    (re.compile(rf"(?i:\b(?:{_ROLE}))[ \t]*[:=-][ \t]*(?P<found>{_ANY})"), 0.8, re.compile("[:=-]")),
    (
        re.compile(rf"(?i:\b(?:pt|nurse|interpreter|case manager|social worker|therapist|pharmacist))[ \t]+(?P<found>{_FULL})"),
        0.6,
        _PEOPLE,
    ),
    (
        re.compile(rf"(?i:\b(?:primary care (?:provider|physician)|attending|resident|surgeon|colleague))[ \t]+(?P<found>{_FULL})"),
        0.6,
        _PEOPLE,
    ),
    (re.compile(rf"(?i:\b(?:{_KIN}),?(?: named| is)?)[ \t]+(?P<found>{_FULL})"), 0.6, _KINS),
    (re.compile(rf"\b(?P<found>(?:[A-Z]\.[ \t]+)?{_ANY}),?[ \t]+(?:{_DEGREE})"), 0.7, _BEFORE_DEGREE),
    (re.compile(rf"(?i:\b(?:sincerely|regards|yours truly|best wishes|respectfully),)\s+(?P<found>{_FULL})"), 0.7, _LETTERS),
    (
        re.compile(rf"(?i:\b(?:referring|discussed with|spoke with|seen by|signed by|dear))[ \t]+(?P<found>{_FULL})"),
        0.6,
        _LETTERS,
    ),
    (re.compile(rf"\b(?P<found>{_FULL})(?=,? {_DESCRIPTION})"), 0.7, _DESCRIBED),
)
