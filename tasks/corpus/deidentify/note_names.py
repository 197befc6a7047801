"""Names as hospital notes write them: shorthand, capitals, signatures, lists, and full names that nothing near them gives away."""

from collections.abc import Iterable

import regex

from tasks.corpus.deidentify import name_runs, titles
from tasks.corpus.deidentify.names import ANY, BLANK, CAPITALS, CASELESS, FULL, LISTED, STARTS, NamePattern, one_of, pattern

# What is done with somebody, and what somebody does.
_WITH = (
    r"discuss\w*|d/?w|s/?w|sp(?:oke|eak|oken|eaking)|talk(?:ed|ing)?|met|meet(?:ing)?s?|review(?:ed)?|consult(?:ed|ation)?|conferr?(?:ed)?|round(?:s|ed|ing)?"
    r"|visit(?:ed)?|appointment|appt|f/?u|follow[- ]?(?:up|ing|ed|s)?|seen|examined|accompanied|liv(?:es?|ing)|stay(?:s"
    r"|ing)|confirmed|phone call|call"
    r"|conversation|handover|handoff|sign[- ]?out|coordinat\w+|case|conference|session|arrived|here|came|presents"
    r"|scrubbed|working|scheduled"
)
_BY = (
    r"seen|examined|evaluated|assessed|referred|accompanied|signed|cosigned|dictated|transcribed|typed|read|interpreted|performed|done|placed"
    r"|inserted|removed|ordered|prescribed|approved|verified|reported|called|paged|witnessed|assisted|attested|entered|recorded|taken|given"
    r"|administered|collected|drawn|reviewed|checked|obtained|provided|told|confirmed|supplied|staffed|supervised|precepted|followed|managed"
    r"|treated|discussed|brought(?: in)?|found|informed|helped|repaired|cared for|written|prepared|completed|edited|note"
    r"|photo|scribed|operation"
    r"|surgery|consult(?:ation)?|report|addendum|addended|dressing|sutured|intubated|admitted|discharged|seen today"
    r"|requested|noted|stated|described"
)
_DID = (
    "paged,notified,informed,updated,texted,contacted,asked,told,emailed,phoned,faxed,thank,thank "
    "you,thanks,hi,hello,dear,paging,reported to,"
    "relayed to,endorsed to,handed over to,handed off to,handoff to,sign out to,signed out to,referred to,sent "
    "to,copied to,forwarded to,gave to,"
    "report to,report given to,result given to,results given to,result called to,results called to,care "
    "transferred,care of,appreciate,per,c/o,"
    "attn,according to,on behalf of,daughter of,son of"
).split(",")
_CALLED = r"called(?= \p{Lu}\p{L}+ (?:at|to|back|about|regarding|and|for|with|re)\b)"
_ROLES = (
    "rn,md,np,pa,pa-c,lpn,lvn,cna,rt,sw,crna,do,rd,cm,ot,pt,slp,emt,sho,ho,resident,intern,fellow,registrar,consultant,attending,surgeon,"
    "anaesthetist,anesthetist,anesthesiologist,midwife,nurse,sister,matron,practitioner,physio,physiotherapist,dietician,dietitian,nutritionist,"
    "pharmacist,therapist,technician,tech,technologist,scribe,interpreter,chaplain,social worker,case "
    "manager,coordinator,pcp,gp,trainee,student,"
    "hospitalist,internist,cardiologist,neurologist,oncologist,urologist,nephrologist,pulmonologist,radiologist,pathologist,pediatrician,"
    "paediatrician,psychiatrist,psychologist,dermatologist,gastroenterologist,endocrinologist,rheumatologist,orthopedist,orthopaedist,dentist,"
    "optometrist,podiatrist,obstetrician,doctor,physician,provider,colleague,leader,recorder,operator,circulator,scrub,doula,sonographer,driver,"
    "sergeant,sgt,detective,judge,father,brother,friend,roommate,officer,paramedic,caregiver,carer,neighbor,neighbour,landlord,boss,coach,teacher,"
    "pastor,rabbi,imam,priest,caseworker,case worker,care co-ordinator,co-ordinator,support person,parent,parents,pharmd,teammate,hospitalist,"
    "locum,stepfather,stepmother,foster mother,foster father,pastor,cons,spr,reg,fy1,fy2,f1,f2,ct1,ct2,st1,st2,st3,st4,st5,st6,st7,st8,sn,ssn,hca,cns,hv,oa,anaes,assistant,assistants,odp,mw,lmc,rmo,"
    "jmo,vmo,nok,baby of,sister in charge,on call,on-call,patient,client,named,name is,surname,aka,a.k.a.,née,nee"
).split(",")


def _first_words(phrases: Iterable[str]) -> frozenset[str]:
    """What a text must hold one of for a pattern of the phrases to match."""
    return frozenset(regex.search(r"\p{L}+", phrase).group() for phrase in phrases)


_ROLE_BEHIND = (
    r"R\.?N|M\.?D|N\.?P|P\.?A(?:-C)?|LPN|LVN|CNA|CRNA|D\.?O|RDN?|RT|OT|PT|SLP|SW|LCSW|MSW|PharmD|Ph\.?D|D\.?D\.?S|D\.?P\.?M|DPT|APRN|ARNP|FNP(?:-C)?|BSN|MSN|MBBS|MBChB|FRCS|FRCP|FACS|FACP"
    r"|CCC-SLP|RRT|EMT|SHO|PGY-?\d|MS-?[1-4]|MS(?:III|IV)|\(?(?i:son|daughter|wife|husband|mother|father|mom|dad|sister|brother|partner|spouse|niece|nephew"
    r"|friend|neighbou?r|guardian|hcp|poa|aunt|uncle|cousin|grand\w+|granddaughter|caregiver|pt|patient|nurse|resident|intern|fellow|attending|registrar)\)"
)
_BEHIND_WORDS = frozenset(
    "r rn m md n np p pa lpn lvn cna crna d do rd rdn rt ot pt slp sw lcsw msw pharmd ph phd dds dpm dpt aprn arna arnp "
    "fnp bsn msn mbbs mbchb frcs frcp "
    "facs facp ccc rrt emt sho pgy ms msiii msiv son daughter wife husband mother father mom dad sister brother partner "
    "spouse niece nephew friend "
    "neighbor neighbour guardian hcp poa aunt uncle cousin grandmother grandfather grandson granddaughter caregiver "
    "patient nurse resident intern "
    "fellow attending registrar".split()
)
_ONE = rf"{ANY}"
_LIST = rf"{ANY}(?:(?:{BLANK}?[,;/&]{BLANK}?|{BLANK}and{BLANK}|{BLANK}?\+{BLANK}?){ANY}){{0,5}}"
_CAPITAL_LISTED = rf"{CAPITALS},{BLANK}?{CAPITALS}(?:{BLANK}(?:{CAPITALS}|\p{{Lu}}\b\.?)){{0,2}}"
_SMALL = r"(?:\p{Ll}['’])?\p{Ll}[\p{Ll}\p{M}]+(?:[-'’]\p{Ll}+)*"
_SENTENCE = r"(?:^|(?<=[.!?:\n\"“•*-][ \t\n]{1,3})|(?<=\n)|(?<=[.!?][ ]{2}))"
_OPENING = regex.compile(r"\p{Lu}\p{Ll}+,? \p{L}")
_SMALL_TITLES = "mr mrs ms miss dr prof".split()


_SMALL_CUES = frozenset(regex.findall(r"\w+", titles.KIN)) | frozenset(
    "grandmother grandfather grandson granddaughter neighbor neighbour dtr hubby by w with per to from called paged thx thanks hi hello nurse "
    "sister rn md np cna aide tech dr stepson stepdaughter stepmother stepfather".split()
)
_ROLE_IN_BRACKETS = (
    r"RN|MD|NP|PA|CNA|LPN|CRNA|RT|PT|OT|SW|SHO|FY\d|(?i:(?:med|surg|ortho|anaes|anesthesia|gyn\w*|paed\w*|ICU|ITU|ED|cardiac|charge|scrub|staff|night|day|"
    r"cardiology|theatre|recovery|ward|bank|student)?[ ]?(?:reg|registrar|SHO|consultant|nurse|resident|fellow|intern|doctor|sister|manager|"
    r"coordinator|physio|doula|midwife|interpreter|carer|paramedic)|ITU|ICU|anaes\w*|surg\w*|ortho\w*)"
)
# What else stands behind "by" in capitals: services, roles, ways to give a drug.
_NO_INITIALS = (
    "EMS|PT|OT|RT|RN|MD|NP|PA|IR|ED|ER|GI|ID|ICU|OR|PCP|CT|US|MR|MRI|EEG|EKG|ECG|IV|PO|IM|SC|SQ|ENT|OB|GYN|SLP|SW|CM|LAB|NG|PEG|VA|CNA|LPN|LVN|MA"
    "|GP|SHO|CNS|EMT|PCR|XR|CXR|TTE|TEE|EGD|PET|NIV|CPR|AED|GT|JT|PR|MDT|CVC|OHS|HHN|NICU|PACU|FNA|LP"
)
MOST_LIKELY = 0.65  # an eponym here is a person
_CASELESS_LETTER = regex.compile(r"(?![ªº])[\p{Lo}\p{Georgian}]")
_DEGREES_BEHIND = r"(?:\p{Lu}\.?){2,5}"
_ANY_CAPITAL = regex.compile(r"\p{Lu}")
_TWO_CAPITALIZED = regex.compile(r"\p{Lu}[\p{Ll}.]+ (?:\p{Lu}\.? )?\p{Lu}")
_COMMA_CAPITALS = regex.compile(r"\p{Lu}{2},[ ]?\p{Lu}{2}")

_BEDS = frozenset("bed rm room bay cubicle cot slot".split())
_NUMBERED = regex.compile(r"\p{L}[ (]{1,2}(?:MRN|#)?[: ]?\d{6}")
_TYPISTS = frozenset("trans transcribed transcriptionist typist typed dict dictated initials tr".split())

_ABBREVIATED = regex.compile(r"\p{Lu}{2,5}[ /]|Drs")
_PERSON_VERBS = (
    "denies|denied|reports|reported|states|stated|complains|complained|endorses|endorsed|presents|presented|admits|lives|smokes|drinks|works|tolerated"
    "|tolerates|refuses|refused|declines|declined|understands|agrees|agreed|verbalizes|verbalized|called|aware|notified|paged|updated|requests|requested"
    "|says|said|tells|told|wants|wanted|feels|felt|ambulated|voided|slept|ate|recommends|recommended|will see|to see|to "
    "follow|following|at bedside"
)

PATTERNS: tuple[NamePattern, ...] = (
    pattern(
        rf"{STARTS}(?<=\b(?i:{_WITH}){BLANK}(?:(?i:up|examined|today|in clinic|and examined){BLANK}){{0,2}}(?:with|w/){BLANK}?)",
        _LIST,
        0.6,
        regex.compile(r"\b(?:with|w/)[ ]?(?=\p{Lu})"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"(?i:\b(?:d/?w|s/?w|c/?w|[sdwbc]/o|s/b|o/b|r/?v(?: by)?|i/c))[:]?{BLANK}+",
        _LIST,
        MOST_LIKELY,
        regex.compile(r"(?i)\b(?:[dsc]/?w|[sdwbc]/o|[so]/b|r/?v|i/c)\b"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"{STARTS}(?<=(?i:\b(?:{_BY}){BLANK}by|(?:^|\n)by|[-–—]{BLANK}?by):?{BLANK})",
        _LIST,
        0.6,
        regex.compile(r"(?i:\bby):?[ ](?=\p{Lu})"),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(rf"(?i:\bby){BLANK}+", r"(?:\p{Lu}\.[ ]?){1,2}\p{Lu}\p{L}+(?:[-'’](?!s(?!\p{L}))\p{L}+)*", 0.6, ("by",)),
    pattern(
        rf"{STARTS}(?<=(?i:\b(?:{one_of(_DID)}|{_CALLED}))[:,]?{BLANK}(?:(?i:the|a|an|his|her|their|my|our){BLANK})?)",
        _LIST,
        MOST_LIKELY,
        _first_words([*_DID, "called"]),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        rf"{STARTS}(?<=(?<![\w/-])(?i:{one_of(_ROLES)}|[a-z]{{4,}}(?:ologist|iatrist|apist|omist|icist|ician))(?:['’]s)?(?: of record)?[,:]?(?:{BLANK}{{1,3}}|{BLANK}?[-–—/|]{BLANK}?|{BLANK}?\()"
        rf"(?:(?i:is|on call|in charge|on duty|named){BLANK})?)",
        _LIST,
        0.6,
        _first_words(_ROLES),
        refine=name_runs.names_near_a_cue,
    ),
    pattern(
        STARTS,
        _ONE,
        0.6,
        (_BEHIND_WORDS, regex.compile(r"(?:[ ,]|\()(?:" + _ROLE_BEHIND + r")\b")),
        after=rf"(?:,{BLANK}*|{BLANK}+|{BLANK}?[-–/]{BLANK}?)(?:{_ROLE_BEHIND}|[(](?:{_ROLE_IN_BRACKETS})[)])(?!\w)",
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
        rf"(?i:(?<![\w-])(?:{titles.KIN}|dtr|hubby|by|w/|with|per|to|from|called|paged|thx|thanks|hi|hello|nurse|sister|rn|md|np|cna|aide|tech|dr)(?:[:,.]?[ ]|(?<=w/)))",
        r"\p{Ll}{4,}(?![\w@./-])",
        0.6,
        _SMALL_CUES,
        refine=name_runs.known_small_names,
    ),
    pattern(r"(?<![\w.@/-])", r"\p{Ll}\.\p{Ll}{4,}(?![\w@.])", 0.5, regex.compile(r"\b\p{Ll}\.\p{Ll}{4}"), refine=name_runs.known_small_names),
    pattern(r"[ ][-–—~][ ]?", r"\p{Ll}{3,}(?=[ ]*(?:\n|$))", 0.5, regex.compile(r"[-–—~][ ]?\p{Ll}{3,}[ ]*(?:\n|$)"), refine=name_runs.known_small_names),
    # In brackets, with a time, alone in a cell of a table.
    pattern(r"\[", ANY, 0.6, regex.compile(r"\[\p{Lu}"), after=r"(?=[ ]?@|[ ]\d{1,2}:?\d\d)", refine=name_runs.names_near_a_cue),
    pattern(r"[(]", rf"{CAPITALS}(?:{BLANK}{CAPITALS})?", 0.5, regex.compile(r"[(]\p{Lu}{3}"), after=r"(?=[)])", refine=name_runs.names_of_lists),
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
        rf"(?!(?:{_NO_INITIALS})\b)\p{{Lu}}{{2,3}}(?![\w-])",
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
        rf"(?<!\w)(?<!\p{{Lu}}\.{BLANK}?)",
        rf"(?:\p{{Lu}}\.{BLANK}?){{1,2}}\p{{Lu}}\p{{Ll}}[\p{{L}}\p{{M}}]+(?:[-'’](?!s(?!\p{{L}}))\p{{L}}+)*",
        0.5,
        regex.compile(r"\p{Lu}\.[ ]?\p{Lu}\p{Ll}"),
        refine=name_runs.initial_and_name,
    ),
    pattern(
        r"(?:^|(?<=\n))[ \t]*",
        r"\p{Lu}{2,3}(?=[:/][ ]?\p{Ll}{2,3}[ \t]*(?:\d|\n|$))",
        0.6,
        regex.compile(r"\p{Lu}{2,3}[:/][ ]?\p{Ll}{2,3}"),
    ),
    # Around a name: a bed, quotes, a newborn, a number of a record; a surname at the start of a line.
    pattern(
        rf"(?i:\b(?:bed|rm|room|bay|cubicle|cot|slot)){BLANK}*#?\w{{1,4}}{BLANK}*[:–-]{BLANK}*",
        ANY,
        0.6,
        _BEDS,
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
        r"\p{Lu}{2,3}[/:]\p{Ll}{2,3}(?![\w/])",
        0.6,
        regex.compile(r"\p{Lu}{2,3}[:/]\p{Ll}{2,3}"),
    ),
    pattern(
        r"(?i:\b(?:trans(?:cribed|criptionist)?(?: by)?|typist|typed by|dict(?:ated)? by|initials|tr))[:/ ]+",
        r"\p{L}{2,3}(?![\w])(?!,)",
        0.6,
        _TYPISTS,
    ),
    pattern(
        r"(?<![\w'’/.@-])",
        r"\p{Lu}\p{Ll}{2,}(?:[-'’]\p{Lu}\p{L}+)?(?![\w@])(?:,[ ]\p{Lu}(?=[ ]{2,}|[ ]*(?:\n|$|[;|]))|[ ]\p{Lu}(?:\.(?!\p{L})|(?=[ ]+\d|[ ]*(?:\n|$|,|RN\b|MD\b))))?",
        0.4,
        _ANY_CAPITAL,
        refine=name_runs.known_name,
    ),
    # Where what stands near speaks for a person a little: an abbreviation or a service before, a bed, an age or a verb of people behind.
    pattern(r"(?<![\w-])(?:\p{Lu}{2,5}|Drs\.?)[ ](?:\p{Lu}\p{Ll}+[ ]and[ ])?", FULL, 0.5, _ABBREVIATED, refine=name_runs.names_near_a_cue),
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
        (_first_words(_PERSON_VERBS.split("|")), regex.compile(rf"[ ](?:{_PERSON_VERBS})(?!\p{{L}})")),
        after=rf"(?=[ ](?:{_PERSON_VERBS})(?!\p{{L}}))",
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
        r"\p{Ll}{2,3}(?=[ ](?:MA|RN|LPN|CMA|RMA)[ ]*(?:\n|$))",
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
