"""Ages of 90 and over, which Safe Harbor wants out."""

import re

_NINETY = r"(?:9\d|1[0-2]\d)"
_SPELLED = r"(?:[Nn]inety|[Oo]ne hundred)(?:[- ](?:and )?(?:one|two|three|four|five|six|seven|eight|nine|ten))?"
OVER_89 = re.compile(rf"{_NINETY}|{_SPELLED}")
AGES = (
    re.compile(
        rf"(?<![\d.,/-])(?P<span>{_NINETY}|{_SPELLED})"
        r"(?=[- ]?(?i:years?[- ]old|years? of age|y/?o[mf]?\b|y\.o\.?|yrs?[- ]?(?:old|o\b)|-y-?o|y[ ]?[MF]\b|y\b(?! ago)"
        r"|yr\b(?![ -](?:history|hx|ago|pack))|yrs\b(?! (?:ago|history))))"
    ),
    re.compile(
        r"(?i:\b(?:age|aged|age/sex|years? of age|at the age of|patient age)\b(?:\s+(?:of|is|was|now))?"
        r"(?:\s*[(](?:yrs?|years?|y)[)])?)[\s:=|,]*"
        rf"(?P<span>{_NINETY}|{_SPELLED})(?![\d.,]*\d|\s?%)"
    ),
    # "92M" after "a" or where a line begins; 98F is a temperature too.
    re.compile(
        rf"(?:^|\n[ \t]*|\|[ \t]*|\b(?i:an?|is|this|the|patient|pt|old|aged?|pleasant|elderly|frail)[:, "
        rf"\t]+)(?P<span>{_NINETY})(?=[ \t]?[MF]\b)"
    ),
    re.compile(
        rf"(?i:\b(?:an?|this|the|old|aged?)[ \t]+)(?P<span>{_NINETY})(?=[ \t]?M\b|[ \t]?(?:F|female|male|woman|man|lady"
        rf"|gentleman)\b[ ,]+(?:with|w/"
        rf"|who|presents|admitted|s/p|hx|c/o|from|in|here|brought|found|h/o))"
    ),
    re.compile(
        r"(?i:\b(?:turned|turning|died at|dead at|lived to(?: be)?|(?:he|she|pt|patient|mother|father|who|resident|lady"
        r"|gentleman) (?:is|was)(?: now)?|in (?:his|her)))\s+"
        rf"(?P<span>{_NINETY}|{_SPELLED})(?![\d.,]*\d|[ ]?%|/|[ ]?(?:degrees|kg|lbs?|pounds|percent|on|bpm|mmHg|sat|mg|cm|F\b|C\b)|°)"
    ),
    re.compile(
        rf"(?<![\d./])(?P<span>{_NINETY})(?=[ ]?/[ ]?[MF]\b|(?:th|st|nd|rd) birthday|[ -]yr"
        r"|[ ]yo\b|[ ]years\b(?! ago| of (?:smok|use|hist)))"
    ),
    re.compile(
        rf"(?<!\d)(?<!\d[ ])(?<!°)(?i:\b(?:[MF]|male|female|man|woman|lady|gentleman))(?:[ ]?/[ ]?|,[ ]|[ ][(])(?P<span>{_NINETY})"
        r"(?![\d.,]*\d|[ ]?(?:%|bpm|kg|mg|mm|cm|/|mL|ml|beats|units?|\xb0))"
    ),
    re.compile(rf"(?<![\d./])(?P<span>{_NINETY})(?=[ ]?(?:Y(?:RS?)?|YO|y\.?o\.?[mf]|years young|♀|♂)(?!\w))"),
    re.compile(rf"(?i:\bin (?:his|her|their)(?: early| mid| late)?[ -])(?P<span>{_NINETY})(?=s\b)"),
    re.compile(
        r"(?i:\b(?:he|she|mother|father|wife|husband|sister|brother|aunt|uncle|patient|pt|lady|gentleman|man|woman|resident|widow\w*|mom|dad)\b"
        rf"[^.\n\d]{{0,30}}\bnow )(?P<span>{_NINETY})(?=[,.;])"
    ),
    re.compile(rf"(?i:\bliving,? |\balive,? (?:at )?)(?P<span>{_NINETY})(?=[,.;])"),
    re.compile(rf"(?i:\bpatient,[ ]|\b(?:he|she|who) (?:is )?now )(?P<span>{_NINETY})(?=[,.;])(?!\.\d)"),
)
