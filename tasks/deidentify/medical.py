"""What looks like an identifier and is none: public telephone lines, and diseases, signs and devices named after people."""

import re

TOLL_FREE = ("800", "833", "844", "855", "866", "877", "888")
SHORT_CODES = ("911", "988", "211", "311", "999", "112", "111")
PUBLIC_HOSTS = re.compile(r"(?:^|[/.@])(?:[\w-]+\.)*[\w-]+\.(?:gov|mil|int)(?=[/:?#]|$)", re.I)
# What a person's name stands before when it is not about the person.
_NAMED_THING = re.compile(
    r"(?:['’]s?)?[\s-]+(?:\w+[\s-]+){0,2}?(?:disease|syndrome|sign|test|palsy|phenomenon|lymphoma|sarcoma|tumou?r|carcinoma|anomaly|anemia|"
    r"anaemia|ataxia|dystrophy|dementia|disorder|paralysis|cell|cells|bod(?:y|ies)|criteria|scale|score|catheter|tube|fracture|hernia|node|nodes|"
    r"contracture|chorea|thyroiditis|arthritis|nephritis|encephalopathy|reflex|reaction|stain|procedure|operation|method|law|virus|fever|"
    r"malformation|deformity|ulcer|esophagus|duct|gland|canal|loop|line|lines|ring|spots?|rash|sequence|complex|gene|protein|factor|wort|"
    r"agar|classification|staging|position|maneuver|manoeuvre|forceps|retractor|valve|shunt|catheterization|type|mutation|effect)\b",
    re.I,
)
# Names that stand for a disease or a drug also without such a word.
EPONYMS = frozenset(
    "addison alzheimer apgar asperger babinski baker barrett bartter basedow becker behçet behcet bell bowen brown-séquard brugada "
    "burkitt chagas charcot chiari crohn cushing down duchenne dupuytren ebola ehlers eisenmenger epstein erb ewing fabry fallot "
    "fanconi foley friedreich gaucher gilbert glasgow gleason goodpasture graves guillain hansen hashimoto henoch hirschsprung "
    "hodgkin horner huntington hurler jakob kaposi kawasaki kearns klinefelter korsakoff krabbe lambert leber leigh lennox lewy lou "
    "gehrig lyme lynch marburg marfan marie meckel ménière meniere menkes morgagni munchausen noonan norwalk osler paget parkinson "
    "pick pompe pott prader raynaud reiter rett reye salmonella sandhoff schwann sjögren sjogren stargardt stevens still sturge tay "
    "tourette turner usher von willebrand waldenström wegener werner west whipple williams wilms wilson wolff zellweger zenker zika "
    "zollinger".split()
)


def is_public(found: str) -> bool:
    """Whether a telephone number is a toll-free line or an emergency number, or an address that of a government's site."""
    digits = re.sub(r"\D", "", found)
    national = digits.removeprefix("1")
    return digits in SHORT_CODES or (len(national) >= 9 and national.startswith(TOLL_FREE)) or bool(PUBLIC_HOSTS.search(found))


def is_medical(text: str, start: int, end: int) -> bool:
    """Whether the name that stands in ``text`` from ``start`` to ``end`` is that of a disease, a sign or a thing."""
    words = re.sub(r"['’]s?\b", "", text[start:end]).casefold().replace("-", " ").split()
    return bool(_NAMED_THING.match(text, end)) or any(word in EPONYMS for word in words)
