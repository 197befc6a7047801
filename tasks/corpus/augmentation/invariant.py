"""What a variant may neither lose nor gain: numbers with their units, negations, sides, directions, drugs and genes."""

import re
from collections import Counter

from tasks.corpus.augmentation.spelling import normalized

_UNIT = (
    r"(?:\s?(?:%|percent\b|(?:mg|mcg|µg|ug|ng|pg|g|kg|mL|ml|dL|L|mmol|µmol|umol|mol|mEq|IU|units?|mm|cm|m|mmHg|kcal|Hz)\b"
    r"(?:/(?:kg|g|mL|ml|dL|L|m2|h|hr|day|d|min|dose)\b)*|(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b))?"
)
_NUMBER = rf"\d+(?:[.,:/]\d+)*{_UNIT}"
_NEGATION = (
    r"\b(?:no|not|never|none|nor|neither|without|absent|absence|cannot|negative|den(?:y|ies|ied)|lacks?|lacking|free of|unable|unlikely|"
    r"rarely|exclud\w*|except|non-?\w*)\b|\w+n['’]t\b"
)
_SIDE = r"\b(?:left|right|bilateral\w*|unilateral\w*|upper|lower|proximal\w*|distal\w*|anterior\w*|posterior\w*|medial\w*|lateral\w*)\b"
_DIRECTION = (
    r"\b(?:increas\w*|decreas\w*|elevat\w*|reduc\w*|high\w*|low\w*|rais\w*|ris(?:es?|en|ing)|fall(?:s|ing|en)?|up|down|more|less|above|below|over|under|most|"
    r"least|before|after|acute\w*|chronic\w*|mild\w*|moderate\w*|severe\w*)\b"
)
_PREFIX = r"\b(?:hyper|hypo)\w*"
# Stems of international nonproprietary names (WHO, The use of stems, 2018) that are rare in other words.
_DRUG = (
    r"\b\w{2,}(?:mab|tinib|ciclib|parib|zomib|pril|prilat|sartan|statin|cillin|mycin|micin|floxacin|cycline|azole|olol|dipine|semide|"
    r"thiazide|gliptin|gliflozin|glitazone|glutide|azepam|azolam|barbital|caine|coxib|profen|fenac|triptan|setron|prazole|tidine|"
    r"lukast|terol|sone|solone|onide|vir|virine|ciclovir|vudine|xaban|gatran|parin|platin|rubicin|taxel|trexate|stigmine|curium|"
    r"curonium|fentanil|orphan|oxetine|triptyline|pramine|peridone|apine|azine)s?\b"
    r"|\b(?:aspirin|insulin|metformin|heparin|warfarin|digoxin|lithium|morphine|codeine|paracetamol|acetaminophen|levothyroxine|"
    r"hydroxyurea|colchicine|allopurinol|methadone|naloxone|ketamine|propofol)\b"
)
_GENE = r"\b(?=[A-Z0-9-]*[A-Z])(?:[A-Z]{1,}[A-Z0-9]*\d[A-Z0-9-]*|[A-Z]{3,}\d*)\b"
_FOLDED = re.compile("|".join((_NUMBER, _NEGATION, _SIDE, _DIRECTION, _PREFIX, _DRUG)), re.I)
_GENES = re.compile(_GENE)


def protected(text: str) -> Counter[str]:
    """The protected parts of a text, in lower case and US spelling, genes as they are, with their counts."""
    parts = Counter(re.sub(r"\s+", "", match.group()) for match in _FOLDED.finditer(normalized(text).lower()))
    parts.update(_GENES.findall(text))
    return parts
