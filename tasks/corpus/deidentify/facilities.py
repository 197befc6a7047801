"""Names of hospitals, practices, pharmacies, schools and the like: no item of Safe Harbor's list, and masked by most hospitals."""

from collections.abc import Iterator

import regex

from tasks.corpus.deidentify.allowlist import ORDINARY
from tasks.corpus.deidentify.lexicon import COUNTRIES, Lexicon, lexicon
from tasks.corpus.deidentify.word_kinds import Kind, kind_of

_BLANK = r"[ \t]+"
_KIND = (
    r"Hospitals?|Medical Cent(?:er|re)|Health ?[Cc]are(?: (?:System|Cent(?:er|re)|Services))?|Health (?:System|Services"
    r"|Cent(?:er|re)|Network|Partners)"
    r"|Clinics?|Clinic|Infirmary|Hospice|Nursing (?:Home|Facility|Cent(?:er|re)|(?:and|&) Rehab\w*)"
    r"|Rehab(?:ilitation)?(?: (?:Cent(?:er|re)|Hospital|Institute))?"
    r"|Care (?:Cent(?:er|re)|Home|Facility)|(?:Surgery|Surgical|Cancer|Living|Medical|Community|Heart|Dialysis|Birth"
    r"|Wellness|Eye|Imaging|Recovery|Treatment|Trauma) Cent(?:er|re)"
    r"|Pavilion|Kidney Care|Dialysis|Drug(?: Store)?|Imaging|Radiology|Laborator(?:y|ies)|Labs?|Diagnostics|Pharmacy"
    r"|Medical (?:Group|Associates|Practice|Practices|Clinic|Partners)"
    r"|Associates|Physicians|Family (?:Medicine|Practice|Health|Clinic)|Primary Care|Pediatrics|Paediatrics"
    r"|Orthop[a]?edics|Dermatology|Cardiology"
    r"|Assisted Living|Senior Living|Retirement (?:Home|Community|Village)|Manor|Lodge|Convalescent(?: Home| Hospital)?|Long[- ]Term Care"
    r"|(?:Cancer|Heart|Eye|Kidney|Spine|Research|Medical|Neurological)? ?Institute|Foundation|University|College"
    r"|(?:Elementary|Middle|High|Primary|Secondary|Grammar) School|School|Academy|Kindergarten|Day ?care|Preschool"
    r"|Ambulance|Fire (?:Department|Dept)|EMS|Urgent Care|ER(?!\w)|ED(?!\w)|Emergency (?:Department|Room)|Home (?:Health"
    r"|Care)|Visiting Nurses?|NHS(?: Foundation)? Trust|Medical Services"
    r"|Correctional (?:Facility|Institution)|Shelter|Sanatorium|Surgery|Health Post|Medical Hall|Nursing Home|Polyclinic"
    r"|Diagnostic Cent(?:er|re)|Medicals|Chemists?|Klinikum|Klinik|Krankenhaus|Spital|Primary|Infant School|Day Nursery"
    r"|Nursery|Hotel|Prison|Barracks|Jail|Detention Cent(?:er|re)|VAMC|VA Medical Center|CAH|Polytechnic|Opticians?|Optometrists?"
    r"|Medical Suppl(?:y|ies)|Supply|(?:County|District|Regional|National|Provincial|Teaching) Referral(?: Hospital)?"
    r"|MBU|OPD|Hosp\.?(?!\w)|HOSP|Anesthesia(?: Group)?|(?:Physician|Anesthesia|Surgical) Group"
    r"|Ambulance (?:Service|Trust)|Spinal Unit|Birth(?:ing)? Cent(?:er|re)|Group Home|Homeless Shelter|Technical College|Seminary"
)
_KIND_IN_CAPITALS = regex.sub(r"\\.|.", lambda part: part[0] if part[0][0] == "\\" else part[0].upper(), _KIND)
# A word of each kind, which a text must hold.
_KIND_WORDS = frozenset(
    "hospital hospitals medical health healthcare clinic clinics infirmary hospice nursing rehab rehabilitation care "
    "center centre pavilion kidney dialysis "
    "drug imaging radiology laboratory laboratories lab labs diagnostics pharmacy associates physicians family primary "
    "pediatrics paediatrics "
    "orthopedics orthopaedics dermatology cardiology living retirement manor lodge convalescent term institute "
    "foundation university college school "
    "academy kindergarten day daycare preschool ambulance fire ems urgent er ed emergency home visiting nhs trust "
    "correctional shelter sanatorium "
    "surgery post hall polyclinic diagnostic medicals chemist chemists klinikum klinik krankenhaus spital infant "
    "nursery hotel prison barracks jail detention vamc cah polytechnic optician opticians optometrist optometrists "
    "supply supplies referral "
    "mbu opd hosp anesthesia birthing seminary".split()
)
_WORD = r"\p{Lu}[\p{L}\p{M}]*(?:['’]s|['’]\p{Lu}\p{Ll}+|s['’])?(?:-\p{Lu}?\p{L}+)*"
_NAME = rf"(?:(?:Saint|St|Ft|Mt|Mount|Fort)\.?{_BLANK})?{_WORD}(?:{_BLANK}(?:(?:of|the|de|la|and|at|for|in|&|-){_BLANK})*{_WORD}){{0,5}}"
_LABEL = (
    r"(?:facility|hospital|clinic|pharmacy|organi[sz]ation|employer|school|laboratory|agency|institution|nursing home"
    r"|snf|performed at|day ?care|shelter|group home|dialysis(?: unit| center)?|unit name|hospice"
    r"|hhc?|hha|home health"
    r"|dme|alf|ltach?|irf|vendor|health cent(?:er|re))(?: (?:name|agency|company|provider|vendor|choice|of "
    r"choice|preference))?"
)
# What such names are made of where they name none: "Outside Hospital", "Community Health Center".
_GENERIC = frozenset(
    "community university general regional county city state national local area outside outlying this that the our her "
    "his their any veterans va "
    "children childrens women womens district central academic teaching private public military urgent walk-in "
    "outpatient inpatient affiliated "
    "referring transferring admitting hospital hospitals medical health clinic center centre care nursing home school "
    "college pharmacy a an and "
    "of at for in to from free mobile virtual telehealth satellite sister parent nearby prior previous new old current same another other "
    "memorial mental behavioral students student travel group program preventive preadmission pre-op anticoagulation lipid infusion wound "
    "pertinent stat trending coag preop pre-op postop illicit skilled interventional robotic laparoscopic open emergent peds stepdown "
    "telemetry tele lasik oral maxillofacial mohs whipple bariatric vascular plastic thoracic orthopedic orthopaedic ophthalmic dental "
    "point-of-care outside reference core send-out recliner construction "
    "department dept room unit ward floor bed building suite office specialist referral theatre theater bay service team "
    "no none not see per via if when at on is was has have he she they we pt patient follow call please go went being day sunday monday "
    "tuesday wednesday thursday friday saturday january february march april may june july august september october "
    "november december".split()
)
_CUE = (
    r"(?:transfer(?:red)?|xfer(?:red)?|conveyed|repatriated|admitted|discharged|referred|sent|brought|presented|seen|treated|hospitalized|hospitalised|returned|came|followed|evaluated|born|delivered|goes"
    r"|care|stay|stayed|resident|rehab|dialysis|HD|surgery|clinic|appointment|visit|imaging|MRI|CT|labs|records?|report|films?|note|slides|obtained|done|performed)"
    r"(?: over| back)?[ ](?:to|from|at|via|@)"
)
_PATRONS = frozenset(
    "holy rosary sacred trinity providence samaritan mercy grace hope faith baptist methodist presbyterian lutheran "
    "adventist sinai zion".split()
)
_CUE_WORDS = frozenset(
    "transfer transferred xfer xferred conveyed repatriated goes admitted discharged referred sent brought presented "
    "seen treated hospitalized hospitalised returned "
    "came followed evaluated born "
    "delivered care stay stayed resident rehab dialysis hd surgery clinic appointment visit imaging mri ct labs record "
    "records report film films note "
    "slides obtained done performed".split()
)
_PLACEHOLDERS = frozenset("abc abcd xyz xxx x y z".split())
_EVERYDAY = _GENERIC | ORDINARY | _PLACEHOLDERS | COUNTRIES - {"amazon"}
_SPLIT = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")
# Where a text may have one: looked for at the start of words alone, which is faster.
_SOME_KIND = regex.compile(rf"\b(?=\p{{Lu}})(?:{_KIND})(?!\p{{L}})")
_SOME_KIND_IN_CAPITALS = regex.compile(rf"\b(?=\p{{Lu}}{{2}})(?:{_KIND_IN_CAPITALS})")
_KINDS = regex.compile(rf"(?:{_KIND})(?!\p{{L}})")
_AT = r"(?:[ \t]+(?:on|at|in)(?:[ \t]+\p{Lu}\p{L}+){1,3}|[ \t]+#[ \t]?\d+)"
_CHAINS = (
    rf"(?:CVS(?:[ \t]+[Pp]harmacy|(?={_AT}))|Walgreens?|Rite[ -]?Aid|Walmart|Costco|Kroger|Safeway|Quest Diagnostics"
    rf"|Lab[Cc]orp|DaVita|Fresenius"
    rf"(?: Medical Care| Kidney Care)?)(?:[ \t]+\p{{Lu}}\p{{Ll}}+){{0,2}}{_AT}?"
)
_WORKS = (
    r"(?:works?|worked|working|job)(?: (?:nights?|days|evenings|part[- ]time|full[- ]time|shifts))? (?:at|for|@)"
    r"|employed (?:at|by)|attends|student at|stud(?:ies|ying) at|teach(?:es|er) at|enrolled "
    r"(?:at|in)|volunteers at|retired from"
)
FAMOUS = (
    r"(?:Massachusetts|Mass\.?) General|Johns Hopkins|Mayo Clinic|Cleveland Clinic|MD Anderson|M\.D\. Anderson"
    r"|(?:Memorial )?Sloan[- ]Kettering"
    r"|[Kk]aiser(?: [Pp]ermanente)?|Mount Sinai|Mt\.? Sinai|Brigham and Women['’]s|Cedars[- ]Sinai|NewYork-Presbyterian|Beth "
    r"Israel(?: Deaconess)?|MGH|BIDMC|BWH|UCSF"
)
_THING = (
    r"(?![ \t]+(?:\w+[ \t]+){0,2}?(?:criteria|classification|score|scale|staging|index|encephalopathy risk|model|study"
    r"|trial|protocol|guidelines?))"
)


def proper_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, from its first word that is no department or everyday word: "Riverside Hospital", and not "Pain Clinic"."""
    words = lexicon()
    for match in _SPLIT.finditer(text, start, end):
        word = regex.sub(r"['’]s?$", "", match.group()).lower()
        if match.group()[0].isupper() and not all(_is_generic(part, words) for part in word.split("-")):
            if not _KINDS.match(text, match.start(), end) and word not in _PLACEHOLDERS and word not in COUNTRIES:
                yield start, end
            return


def labelled_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself behind a label of an institution or an employer, where one word is no everyday word of hospitals."""
    for match in _SPLIT.finditer(text, start, end):
        word = regex.sub(r"['’]s?$", "", match.group()).lower()
        is_proper = match.group()[0].isupper() and not match.group().isupper() and len(word) > 1 and not _KINDS.fullmatch(match.group())
        if is_proper and word not in _EVERYDAY:
            yield start, end
            return


def unknown_names(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, where its first word is no word of language or medicine: behind "transferred from", where a ward can stand too."""
    first = _SPLIT.search(text, start, end)
    if (
        first
        and not regex.search("-\\p{Ll}", first.group())
        and kind_of(first.group(), lexicon()) >= Kind.STRONG
        and first.group().lower() not in COUNTRIES
    ):
        yield start, end


def _is_generic(word: str, words: Lexicon) -> bool:
    return word not in _PATRONS and (len(word) < 2 or word in _GENERIC or word in ORDINARY or word in words.clinical or word in words.drugs)


PATTERNS = (
    (
        regex.compile(rf"(?<![\w/-])(?P<span>{_NAME}{_BLANK}(?:{_KIND})(?:,?{_BLANK}(?:of|at|in){_BLANK}{_WORD})?)(?!\p{{L}})"),
        (_KIND_WORDS, _SOME_KIND),
        proper_names,
    ),
    (
        regex.compile(
            rf"(?:^|(?<=\n))[ \t]*(?P<span>(?:[\p{{Lu}}'’&.-]+[ ]){{1,5}}(?:{_KIND_IN_CAPITALS})(?:[ ][\p{{Lu}}]+){{0,2}})"
            r"(?=[ \t]*(?:\n|$|[,|-]))"
        ),
        (_KIND_WORDS, _SOME_KIND_IN_CAPITALS),
        proper_names,
    ),
    (
        regex.compile(rf"(?i:\b{_LABEL})[ \t]*[:=][ \t]*(?P<span>{_NAME}(?:;[ ]\d\w\w:[ ]{_NAME})?)"),
        regex.compile(rf"[:=](?<=(?i:\b{_LABEL})[ \t]*[:=])"),  # of colons there are fewer than of words
        labelled_names,
    ),
    (
        regex.compile(
            rf"(?i:\b(?:{_WORKS})){_BLANK}(?:(?:the|a){_BLANK})?(?P<span>{_NAME}(?:[ ](?:warehouse|plant|factory|store|restaurant))?)"
        ),
        frozenset(
            "work works worked working job employed attends student studies studying teaches teacher enrolled volunteers retired".split()
        ),
        labelled_names,
    ),
    (
        regex.compile(rf"(?i:\b{_CUE})[ ](?:the[ ])?(?P<span>{_NAME})(?!\p{{L}})(?![ ](?:ward|unit|room|bay|suite)\b)"),
        (_CUE_WORDS, regex.compile(rf"(?i)\b{_CUE}[ ]")),
        unknown_names,
    ),
    (
        regex.compile(rf"(?i:\b(?:location|practice|site|surgery))[ \t]*[:=][ \t]*(?P<span>{_NAME})"),
        frozenset(("location", "practice", "site", "surgery")),
        unknown_names,
    ),
    # Prisons, health centres and wards by their abbreviation; what stands behind "@".
    (
        regex.compile(rf"(?<![\w-])(?P<span>(?:HMP|HMYOI|FCI|USP|PHC|CHC|UPHC|FMC|SCI|OSPITAL NG)[ ]{_NAME})"),
        regex.compile(r"\b(?:HMP|HMYOI|FCI|USP|PHC|CHC|UPHC|FMC|SCI|OSPITAL NG)[ ]"),
        labelled_names,
    ),
    (regex.compile(rf"(?<=\w[ ]@[ ]?)(?P<span>{_NAME})"), regex.compile(r"@[ ]?\p{Lu}\p{Ll}"), unknown_names),
    (
        regex.compile(
            r"(?<![\w-])(?P<span>(?:Visiting Nurses?|Children['’]s|Hospice|Diocese|University|College"
            r"|Sisters)(?:[ ]\p{Lu}\p{Ll}+\.?)?[ ]of(?:[ ]\p{Lu}\p{Ll}+){1,3})"
        ),
        frozenset("visiting children hospice diocese university college sisters".split()),
        None,
    ),
    (
        regex.compile(
            r"(?<![\w-])(?P<span>(?:Saint|St\.?|Mt\.?|Mount|Our Lady of"
            r"|Mater)[ ]\p{Lu}\p{Ll}+(?:['’]s)?(?:[ ](?:Hospital|Infirmary|Hospice|Clinic|Medical Cent(?:er|re)"
            r"|Health))?)(?=[ ]?(?:[,.;:©–-]|\n|$|ED\b|ER\b|ICU\b))"
        ),
        frozenset("saint st mt mount lady mater".split()),
        None,
    ),
    (regex.compile(rf"\b(?P<span>{_CHAINS})(?!\w)"), regex.compile(_CHAINS), None),
    (regex.compile(rf"\b(?P<span>{FAMOUS})(?!\w){_THING}"), regex.compile(FAMOUS), None),
)  # pattern, what a text must hold for it to be worth trying, and what part of the span is a name
