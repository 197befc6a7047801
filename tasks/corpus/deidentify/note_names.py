"""Names as hospital notes write them: shorthand, capitals, signatures, lists, and full names that nothing near them gives away."""

from collections.abc import Iterable

import regex

from tasks.corpus.deidentify import cues, name_runs, titles
from tasks.corpus.deidentify.names import ANY, BLANK, CAPITALS, CASELESS, FULL, LISTED, STARTS, NamePattern, one_of, pattern


def _first_words(phrases: Iterable[str]) -> frozenset[str]:
    """What a text must hold one of for a pattern of the phrases to match."""
    return frozenset(regex.search(r"\p{L}+", phrase).group() for phrase in phrases)


_ONE = rf"{ANY}"
_LIST = rf"{ANY}(?:(?:{BLANK}?[,;/&]{BLANK}?|{BLANK}and{BLANK}|{BLANK}?\+{BLANK}?){ANY}){{0,5}}"
_CAPITAL_LISTED = rf"{CAPITALS},{BLANK}?{CAPITALS}(?:{BLANK}(?:{CAPITALS}|\p{{Lu}}\b\.?)){{0,2}}"
_SMALL = r"(?:\p{Ll}['’])?\p{Ll}[\p{Ll}\p{M}]+(?:[-'’]\p{Ll}+)*"
_SENTENCE = r"(?:^|(?<=[.!?:\n\"“•*-][ \t\n]{1,3})|(?<=\n)|(?<=[.!?][ ]{2}))"
_SMALL_TITLES = "mr mrs ms miss dr prof".split()


_CASELESS_LETTER = regex.compile(r"(?![ªº])[\p{Lo}\p{Georgian}]")
_DEGREES_BEHIND = r"(?:\p{Lu}\.?){2,5}"
_ANY_CAPITAL = regex.compile(r"\p{Lu}")
_TWO_CAPITALIZED = regex.compile(r"\p{Lu}[\p{L}.]+ (?:\p{Lu}\.? )?\p{Lu}")
_COMMA_CAPITALS = regex.compile(r"\p{Lu}{2},[ ]?\p{Lu}{2}")

_NUMBERED = regex.compile(r"\p{L}[ (]{1,2}(?:MRN|#)?[: ]?\d{6}")

_ABBREVIATED = regex.compile(r"\p{Lu}{2,5}[ /]|Drs")

PATTERNS: tuple[NamePattern, ...] = (
    pattern(
        rf"{STARTS}(?<=\b(?i:{cues.WITH}){BLANK}(?:(?i:up|examined|today|in clinic|and examined){BLANK}){{0,2}}(?:with|w/){BLANK}?)",
        _LIST,
        0.6,
        regex.compile(r"\b(?:with|w/)[ ]?(?=\p{Lu})"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"(?i:\b(?:d/?w|s/?w|c/?w|[sdwbc]/o|s/b|o/b|r/?v(?: by)?|i/c))[:]?{BLANK}+",
        _LIST,
        cues.SCORE_OF_A_PERSON,
        regex.compile(r"(?i)\b(?:[dsc]/?w|[sdwbc]/o|[so]/b|r/?v|i/c)\b"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"{STARTS}(?<=(?i:\b(?:{cues.BY}){BLANK}by|(?:^|\n)by|[-–—]{BLANK}?by):?{BLANK})",
        _LIST,
        0.6,
        regex.compile(r"(?i:\bby):?[ ](?=\p{Lu})"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(rf"(?i:\bby){BLANK}+", r"(?:\p{Lu}\.[ ]?){1,2}\p{Lu}\p{L}+(?:[-'’](?!s(?!\p{L}))\p{L}+)*", 0.6, ("by",)),
    pattern(
        rf"{STARTS}(?<=(?i:\b(?:{one_of(cues.DID)}|{cues.CALLED}))[:,]?{BLANK}(?:(?i:the|a|an|his|her|their|my|our){BLANK})?)",
        _LIST,
        cues.SCORE_OF_A_PERSON,
        _first_words([*cues.DID, "called"]),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"{STARTS}(?<=(?<![\w/-])(?i:{one_of(cues.ROLES)}|[a-z]{{4,}}(?:ologist|iatrist|apist|omist|icist"
        rf"|ician))(?:['’]s)?(?: of record)?[,:]?(?:{BLANK}{{1,3}}|{BLANK}?[-–—/|]{BLANK}?|{BLANK}?\()"
        rf"(?:(?i:is|on call|in charge|on duty|named){BLANK})?)",
        _LIST,
        0.6,
        _first_words(cues.ROLES),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        STARTS,
        _ONE,
        0.6,
        (cues.BEHIND_WORDS, regex.compile(r"(?:[ ,]|\()(?:" + cues.ROLE_BEHIND + r")\b")),
        after=rf"(?:,{BLANK}*|{BLANK}+|{BLANK}?[-–/]{BLANK}?)(?:{cues.ROLE_BEHIND}|[(](?:{cues.ROLE_IN_BRACKETS})[)])(?!\w)",
        refine=name_runs.names_by_role,
    ),
    pattern(
        rf"\bI,{BLANK}+",
        ANY,
        0.7,
        regex.compile(r"\bI, ?\p{L}"),
        after=rf"(?=,?(?:{BLANK}{_DEGREES_BEHIND},)?{BLANK}(?:have|was|am|did|do|saw|had|certify|attest|hereby|confirm|agree|personally|performed|reviewed|supervised"
        r"|the|being|examined|consent|give|authorize|understand|served|acted)\b)",
        refine=name_runs.names_near_a_cue,
    ),
    # In a script without case, amid Latin letters, it is hardly anything else.
    pattern(
        rf"(?<=[A-Za-z\d][:.,;)/–-]?{BLANK}[(\"“]?)",
        CASELESS,
        0.6,
        _CASELESS_LETTER,
        after=r"(?=[,.;:)\"”/–-]|\n|$|[ ][A-Za-z\d(,–-])",
        refine=name_runs.amid_latin,
    ),
    # Without capitals: behind who, with whom or a service, and with an initial.
    pattern(
        rf"(?i:(?<![\w-])(?:{titles.KIN}|dtr|hubby|by|w/|with|per|to|from|called|paged|thx|thanks|hi|hello|nurse|sister"
        rf"|rn|md|np|cna|aide|tech|dr)(?:[:,.]?[ ]|(?<=w/)))",
        r"\p{Ll}{4,}(?![\w@./-])",
        0.6,
        cues.SMALL_CUES,
        refine=name_runs.known_small_names,
    ),
    pattern(
        r"(?<![\w.@/-])", r"\p{Ll}\.\p{Ll}{4,}(?![\w@.])", 0.5, regex.compile(r"\b\p{Ll}\.\p{Ll}{4}"), refine=name_runs.known_small_names
    ),
    pattern(
        r"[ ][-–—~][ ]?",
        r"\p{Ll}{3,}(?=[ ]*(?:\n|$))",
        0.5,
        regex.compile(r"[-–—~][ ]?\p{Ll}{3,}[ ]*(?:\n|$)"),
        refine=name_runs.known_small_names,
    ),
    # In brackets, with a time, alone in a cell of a table.
    pattern(r"\[", ANY, 0.6, regex.compile(r"\[\p{Lu}"), after=r"(?=[ ]?@|[ ]\d{1,2}:?\d\d)", refine=name_runs.names_near_a_cue),
    pattern(
        r"[(]", rf"{CAPITALS}(?:{BLANK}{CAPITALS})?", 0.5, regex.compile(r"[(]\p{Lu}{3}"), after=r"(?=[)])", refine=name_runs.names_of_lists
    ),
    pattern(r"(?<=[|][ \t]*)", ANY, 0.5, regex.compile(r"[|][ \t]*\p{Lu}"), after=r"(?=[ \t]*[|])", refine=name_runs.names_of_lists),
    pattern(
        rf"\b(?i:patient|pt|client|resident|re)(?:{BLANK}name)?:{BLANK}*",
        LISTED,
        0.7,
        regex.compile(r"(?i)\b(?:patient|pt|client|resident|re)(?:[ ]name)?:"),
        after=r"(?=[ ]{2,}|\t|\n|$|[,;(|]|[ ](?:MRN|DOB|\d))",
        refine=name_runs.names_by_role,
    ),
    # Authors, as references and by-lines list them: "Kariuki JM, Otieno PA".
    pattern(
        r"(?<![\w-])",
        r"\p{Lu}[\p{Ll}\p{M}'’-]{2,}[ ]\p{Lu}{1,3}(?:,[ ]\p{Lu}[\p{Ll}\p{M}'’-]{2,}[ ]\p{Lu}{1,3})+(?!\w)",
        0.6,
        regex.compile(r"\p{Ll} \p{Lu}{1,3},[ ]\p{Lu}\p{Ll}+ \p{Lu}{1,3}\b"),
        refine=name_runs.names_of_lists,
    ),
    # The initials of who did something.
    pattern(
        rf"(?i:\b(?:verified|read|placed|drawn|collected|entered|signed|dictated|reviewed|checked|transcribed|typed|recorded|inserted|witnessed|assisted)"
        rf"{BLANK}by):?{BLANK}*",
        rf"(?!(?:{cues.NO_INITIALS})\b)\p{{Lu}}{{2,3}}(?![\w-])(?=[ ]*(?:[\n,;.)]|$|[ ]\p{{Lu}}|@|\d|under|at|on)|,)",
        0.6,
        frozenset(("by",)),
    ),
    pattern(r"/[eE]?[sS]/[ \t]*", FULL, 0.8, regex.compile("/[eE]?[sS]/")),
    pattern(
        r"(?i:(?:^|(?<=\n))[ \t]*(?:cc|copies(?: to)?|copy to|c\.c\.|bcc|attendees|distribution|recipients?))[ \t]*:[ \t]*",
        r"[^\n]{1,200}",
        0.6,
        regex.compile(r"(?i)\b(?:b?cc|c\.c\.|cop(?:y|ies)|attendees|distribution|recipients?)\b"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(rf"(?<![\w,]){BLANK}?", _CAPITAL_LISTED, 0.6, _COMMA_CAPITALS, refine=name_runs.listed_names),
    pattern(
        rf"(?<![\w/-])(?:{'|'.join(_SMALL_TITLES)})\.?{BLANK}+",
        rf"{_SMALL}(?:{BLANK}{_SMALL})?",
        0.6,
        frozenset(_SMALL_TITLES),
        refine=name_runs.small_names,
    ),
    pattern(STARTS, FULL, 0.5, _TWO_CAPITALIZED, refine=name_runs.full_names),
    pattern(
        # Behind a number C and F are units: 37.1 C.
        rf"(?<!\w)(?<!\p{{Lu}}\.{BLANK}?)(?!(?<=\d{BLANK}?°?{BLANK}?)[CFKL]\.)",
        rf"(?:\p{{Lu}}\.{BLANK}?){{1,2}}\p{{Lu}}\p{{Ll}}[\p{{L}}\p{{M}}]+(?:[-'’](?!s(?!\p{{L}}))\p{{L}}+)*",
        0.5,
        regex.compile(r"\p{Lu}\.[ ]?\p{Lu}\p{Ll}"),
        refine=name_runs.initial_and_name,
    ),
    pattern(
        r"(?:^|(?<=\n))[ \t]*",
        r"\p{Lu}{2,3}(?=/\p{Ll}{2,3}[ \t]*(?:\d|\n|$))",
        0.6,
        regex.compile(r"\p{Lu}{2,3}/\p{Ll}{2,3}"),
    ),
    # Around a name: a bed, quotes, a newborn, a number of a record; a surname at the start of a line.
    pattern(
        rf"(?i:\b(?:bed|rm|room|bay|cubicle|cot|slot)){BLANK}*#?\w{{1,4}}{BLANK}*[:–-]{BLANK}*",
        ANY,
        0.6,
        cues.BEDS,
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"(?i:\b(?:{titles.KIN})){BLANK}*[(]", ANY, 0.7, regex.compile("[(]\\p{Lu}"), after=r"(?=[,)])", refine=name_runs.names_by_role
    ),
    pattern(
        rf"(?i:\b(?:goes by|known as|maiden(?: name)?|n[ée]e|nicknamed?|preferred name|prefers(?: to be called)?|aka|a\.k\.a\.|answers "
        rf"to))[:,]?{BLANK}+(?:the name{BLANK}+)?[\"“'‘]?",
        ANY,
        0.7,
        frozenset("goes known maiden nee née nickname nicknamed preferred prefers aka answers".split()),
        refine=name_runs.names_by_role,
    ),
    pattern(
        rf"(?i:\b(?:baby(?: boy| girl)?|newborn|twin(?: [ab12])?|infant)|\bB[BG])(?:{BLANK}+(?:of|boy|girl))?{BLANK}+",
        ANY,
        0.7,
        frozenset("baby newborn twin infant bb bg".split()),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(STARTS, ANY, 0.7, _NUMBERED, after=rf"(?={BLANK}*[(]?(?:MRN|#)?[: ]?\d{{6,10}}\b)", refine=name_runs.names_by_role),
    pattern(
        rf"{_SENTENCE}[ \t]*",
        CAPITALS,
        0.6,
        regex.compile(r"\p{Lu}{3}"),
        after=rf"(?=,?{BLANK}(?:seen|was|presents|here|arrived|DOB|dob|MRN|\d{{1,3}}[ ]?(?:y|M\b|F\b)))",
        refine=name_runs.names_near_a_cue,
    ),
    pattern(rf"\b(?i:name|patient|pt){BLANK}+", _CAPITAL_LISTED, 0.7, _COMMA_CAPITALS),
    pattern(rf"(?<![\w/-])(?:DR|MR|MRS|MS|PROF)\.?{BLANK}+", FULL, 0.7, ("dr", "mr", "mrs", "ms", "prof"), refine=name_runs.names_by_role),
    pattern(rf"{STARTS}(?=\S+(?:[ ]\S+)?,[ ]\p{{Lu}})", LISTED, 0.5, regex.compile(r"\p{L}, \p{Lu}"), refine=name_runs.surname_first),
    # Who dictated and who typed: "D: 1420 T: 1530 JAS/abc", "Trans: jlm".
    pattern(
        r"(?:(?:^|(?<=\n))[ \t]*|\b[DT]: ?[\d:/ ]{4,20}[ \t]|(?<=[.] )(?=\S+ +[DT]:))",
        r"(?!ENT|GEN|EXT|ABD)\p{Lu}{2,3}[/:]\p{Ll}{2,3}(?![\w/])",
        0.6,
        regex.compile(r"\p{Lu}{2,3}[:/]\p{Ll}{2,3}"),
    ),
    pattern(
        r"(?i:\b(?:transcribed by|transcriptionist|typist|typed by|dict(?:ated)? by|initials)[:/ ]+|\b(?:trans|tr)[:/][ ]?)",
        r"(?!(?i:and|or|the|to|by|was|not|no|see|for|per|our|his|her)\b)\p{L}{2,3}(?![\w])(?!,)",
        0.6,
        cues.TYPISTS,
    ),
    pattern(
        r"(?<![\w'’/.@-])",
        r"\p{Lu}\p{Ll}{2,}(?:[-'’]\p{Lu}\p{L}+)?(?![\w@])(?:,[ ]\p{Lu}(?=[ ]{2,}|[ ]*(?:\n|$|[;|]))"
        r"|[ ]\p{Lu}(?:\.(?!\p{L})|(?=[ ]+\d|[ ]*(?:\n|$|,|RN\b|MD\b))))?",
        0.4,
        _ANY_CAPITAL,
        refine=name_runs.known_name,
    ),
    # Where what stands near speaks for a person a little: an abbreviation or a service before, a bed, an age or a verb of people behind.
    pattern(
        r"(?<![\w-])(?:(?!MR\b|CT\b|US\b|XR\b)\p{Lu}{2,5}|Drs\.?)[ ](?:\p{Lu}\p{Ll}+[ ]and[ ])?",
        FULL,
        0.5,
        _ABBREVIATED,
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"{STARTS}(?:(?:Drs\.?|and|&|/)[ ])?",
        FULL,
        0.5,
        regex.compile(r"\p{L}[ ]?/[ ]?\p{Lu}"),
        after=r"(?=[ ]?/[ ]?(?:\p{Lu}\p{Ll}|\p{Lu}{2,3}\b))",
        refine=name_runs.unknown_names,
    ),
    pattern(
        r"(?<=\b(?:PGY-?\d|MD|RN|NP)[ ]?/[ ]?)", FULL, 0.5, regex.compile(r"(?:PGY-?\d|MD|RN|NP)[ ]?/"), refine=name_runs.unknown_names
    ),
    pattern(r"(?<=\bDrs\.?[ ](?:\p{Lu}[\p{L}'’-]+(?:,[ ]|[ ]and[ ]|,[ ]and[ ])){1,4})", FULL, 0.7, ("drs",)),
    pattern(r"\w[ ]?[(]", FULL, 0.5, regex.compile(r"[(]\p{Lu}\p{Ll}"), after=r"(?=[)])", refine=name_runs.names_near_a_cue),
    pattern(
        r"(?:^|(?<=\n)|(?<=[–-][ ]))[ \t]*",
        FULL,
        0.5,
        regex.compile(r"[ ](?:(?:bed|rm|room)[ ]?\d|\d{2,3}[A-D]?[ ]?[-–:]|G\d+[ ]?P\d|\d{1,3}[ ]?(?:y|[MF]\b)|[(]\d)"),
        after=r"(?=,?[ ](?:(?:bed|rm|room)[ ]?\d|\d{2,3}[A-D]?[ ]?[-–:]|G\d+[ ]?P\d|\d{1,3}[ ]?(?:y|[MF]\b)|[(]\d))",
        refine=name_runs.unknown_names,
    ),
    pattern(
        _SENTENCE,
        FULL,
        0.5,
        (_first_words(cues.PERSON_VERBS.split("|")), regex.compile(rf"[ ](?:{cues.PERSON_VERBS})(?!\p{{L}})")),
        after=rf"(?=[ ](?:{cues.PERSON_VERBS})(?!\p{{L}}))",
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        r"(?:^|(?<=[\n.][ ]?))(?i:cc|to|from|thx|thanks|regards)[:,]?[ ]+",
        _LIST,
        0.5,
        frozenset("cc to from thx thanks regards".split()),
        refine=name_runs.unknown_names,
    ),
    pattern(
        r"(?i:\b(?:w/|lvm for|covering for|asked for|known to|accepted by|msg to|message to|scribed for))[ ]",
        FULL,
        0.5,
        _ANY_CAPITAL,
        refine=name_runs.unknown_names,
    ),
    pattern(
        r"(?i:\b(?:scribed|acting|dictating|covering|behalf)\b[^\n.]{0,50}?\bfor)[ ]",
        FULL,
        0.6,
        frozenset("scribed acting dictating covering behalf".split()),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        r"(?:^|(?<=[\n. ]))",
        r"(?!(?:the|per|our|by|to|and|or|for|a|an|his|her|my|via|as|of|if|no|new|all|any|ask|see|pt|on|is"
        r"|was)\b)\p{Ll}{2,3}(?=[ ](?:MA|RN|LPN|CMA|RMA)[ ]*(?:\n|$))",
        0.6,
        regex.compile(r"\b\p{Ll}{2,3}[ ](?:MA|RN|LPN|CMA|RMA)\b"),
    ),
    # A line or cell with a name, and a birthday or a number behind it.
    pattern(
        r"(?:^|(?<=[\n|]))[ \t]*",
        ANY,
        0.6,
        regex.compile(r"[|,;][ ]*(?:DOB|dob|SSN|MRN|\d)"),
        after=r"(?=[ ]*[|,;][ ]*(?:DOB|dob|SSN|MRN|\d{1,2}[/.-]\d|\d{3}-\d\d-))",
        refine=name_runs.names_near_a_cue,
    ),
)
