"""The allowlist: what looks like an identifier and is none: public telephone lines, and diseases, signs and devices named after people."""

import re
from pathlib import Path

from tasks.corpus.deidentify.lexicon import lexicon

TOLL_FREE = ("800", "833", "844", "855", "866", "877", "888")
SHORT_CODES = ("911", "988", "211", "311", "999", "112", "111", "000", "995")
PUBLIC_HOSTS = re.compile(r"(?:^|[/.@])(?:[\w-]+\.)*[\w-]+\.(?:gov|mil|int)(?=[/:?#]|$)", re.I)
# What a person's name stands before when it is not about the person.
_NAMED_THING = re.compile(
    r"(?:['’]s?)?[ \t-]+(?:\w+[ \t-]+){0,2}?(?:disease|syndrome|sign|test|palsy|phenomenon|lymphoma|sarcoma|tumou?r"
    r"|carcinoma|anomaly|anemia|"
    r"anaemia|ataxia|dystrophy|dementia|disorder|paralysis|cell|cells|bod(?:y|ies)|criteria|scale|score|catheter|tube|fracture|hernia|node|nodes|"
    r"contracture|chorea|thyroiditis|arthritis|nephritis|encephalopathy|reflex|reaction|stain|procedure|operation|method|law|virus|fever|"
    r"malformation|deformity|aphasia|teeth|tooth|triad|pouch|knot|nodules?|cyst|graft|flap|stent|drain|maneuver|manoeuvre|exercises?|plaque|area|"
    r"ulcer|esophagus|duct|gland|canal|loop|line|lines|ring|spots?|rash|sequence|complex|gene|protein|factor|wort|"
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
    "tourette turner usher willebrand waldenström wegener werner west whipple williams wilms wilson wolff zellweger zenker zika "
    "zollinger".split()
)

# Diseases of two people, of whom one alone could be anybody.
_PAIR = re.compile(
    r"(?:Guillain|Landry|Stevens|Epstein|Klippel|Miller|Creutzfeldt|Wolff|Charcot|Ehlers|Prader|Lennox|Henoch|Mallory|Budd|Osgood|Legg|Brown"
    r"|Dandy|Arnold|Wernicke|Peutz|Zollinger|Sturge|Laurence|Treacher|Austin|Edwards|Weil|Dejerine|Hallervorden|Lesch|Rubinstein|Smith)"
    r"[-– ](?:Barr[eé]|Johnson|Barr|Feil|Weber|Fisher|Jakob|Parkinson|Marie|Danlos|Willi|Gastaut|Sch[oö]nlein|Weiss|Chiari|Schlatter"
    r"|Calv[eé]|S[eé]quard|Walker|Korsakoff|Jeghers|Ellison|Moon|Collins|Moore|Sapien|Osler|Sottas|Spatz|Nyhan|Taybi|Magenis|Lemli)\b"
)
# Names of tests, scores, tubes and operations, which many people have too: what follows says which they are.
TESTS = frozenset((Path(__file__).parent / "eponyms.txt").read_text(encoding="utf-8").split())
_THING_OF = re.compile(
    r"\b(?:foramen|foramina|circle|sphincter|ampulla|islets?|canal|pouch|space|line|node|bundle|valves?|ligament|artery|vein|cave|angle|crypts?|glands?|loop|fissure|duct"
    r"|tetralogy|papilla|organ|zone|area|triangle|sign|law|test|bodies|tunica|bursa|arc|plexus|fossa|sinus|muscle|fascia"
    r"|tubercle) of (?:the )?$",
    re.I,
)
_RESULT = re.compile(
    r"(?:['’]?s)?(?:[-/–]\w+)*[ ]?(?:(?i:positive|negative|score|solution)\b|[:=]?[ ]?[<>]?\d|[:=][ ]?\w|[(]\d|(?i:neg"
    r"|pos|abnormal|normal|wnl|\+|-ve|\+ve"
    r"|protocol|grade|stage|class|level|risk|exam|exercise|lead|"
    r"and \w+ (?:test|sign)|assessment|inventory|questionnaire|chart|lens|tonometry|drainage|pouch|fundoplication|view"
    r"|position|guide|splint|brace|boot|"
    r"bandage|dressing|technique|approach|repair|incision|needle|cannula|sheath|balloon|midline|x\d)\b|-en-)"
)
# Words that open with a capital in headings and sentences where a name might stand: behind "Patient", "Pan", "Sr.", "M.", "Don".
ORDINARY = frozenset(
    "access account activity acute address adherence adjustment admission admit admits admitted advance advised advocate advocacy "
    "agreed agrees alert allergies allergy also although always ambulated ambulatory anatomy and any appeared appears apply "
    "appointment appropriate area arrived assessed assessment assigned assistance assistant at attended aware background balance bath "
    "bed bedside behavior being benefit best bilirubin biopsy bleeding blood both breath brought but calcium call called calls came "
    "can cannot capnography care centered chart charted check chief chloride choice chronic class clinic clinical communication "
    "comfort complained complains complaint complaints compliance compliant concern concerns condition confidentiality consent "
    "consented contact continue continued continues control controlled cooperative could counseling counselled course creatinine "
    "culture cultured cultures current currently ct data date day decision declined declines demographics demonstrates denied denies "
    "described describes details developed device diabetes diagnosed diagnoses diagnosis did diet discharge discharged discussed "
    "disease disposition distress do documented does dose drug due during education educated either electrolytes electronic eligible "
    "emergency encounter encouraged endorsed endorses engagement enrolled entry evaluated evaluation exam examination examined "
    "exhibits experience experienced experiences explained exposure expressed eyes face factors failed family feedback feels fell "
    "felt female ferritin findings first flow fluid focused folate follow followed follow-up food foley form found from full function "
    "functional further gave general given glucose goals gown gloves group guide had handling handout has have health hematocrit "
    "hemoglobin here high history home hospital hospitalized hereditary holter hours how however hygiene identification identified "
    "identifier identity immunization improved in indicated indicates information initial initially injury instructed instruction "
    "instructions insurance interval interview intolerance intubated iron is isolation it its journey kept knowledge known labs language "
    "last later latex left legal level levels liaison lies lift likely list lithium living located location log magnesium male "
    "management managed management's mask may medical medication medications medicine met might mobility monitor monitored monitoring "
    "mood most must name named navigator needed needs never new no normal not note noted notes notified now number nursing nutrition "
    "objective observation observed of off on once only onset open or orders orientation oriented other otherwise our outcome "
    "outcomes outpatient output oxygen pain panel parameters past patient patients perspective phase phosphate phone physical placed "
    "plan plasma platelets population portal position positioning positive possible potassium preference preferences preparation "
    "prepared presented presenting presents presentation prescribed pressure previous previously primary prior privacy procedure "
    "profile progress protein protective provided provider questionnaire rate reason received receives recommended record records "
    "recovery reference referral referred refused refuses registration related relations release remained remains remote report "
    "reported reports representative request requested requests required requires resident resource resources respiratory response "
    "responsibilities rest resting result results resumed returned returned returns review reviewed right rights risk room safety "
    "said sample satisfaction saturation says scan scans scheduled score scores screen screening seated second seems seen selection "
    "self sent serum service services severe sex she should sinusitis since sinus sleeping smoked smokes social sodium specific "
    "specimen stable staff started state stated states status stay still stopped study subgroup subjective summary supine support "
    "surface surgery surgical survey symptoms take takes talked team technician temperature tells test tests than that the their then "
    "there therapy these they this those throughput tolerated tolerates took topic total training transfer transferred transport "
    "transportation treated treatment triage triglycerides troponin type undergoing undergoes understanding understands understood "
    "underwent unable unit until urea uric urine urinary use used uses usually value valuables ventilated verbalized verbalizes "
    "verification visit visited vital vitals vitamin volume waiting wait walked walks wants was wears weighs weight well went were "
    "when where which while who will with within without work worked would year years yes "
    # of Latin, behind "M."
    "abscessus avium biceps bovis brachialis catarrhalis chelonae deltoideus fortuitum furfur genitalium gluteus hominis kansasii "
    "leprae marinum masseter morbus pectoralis pneumoniae psoas quadriceps rectus soleus sternocleidomastoideus trapezius triceps "
    "tuberculosis ulcerans diff difficile glabrata albicans krusei parapsilosis "
    # Roles and services.
    "eval vanc pneumo tmax stepdown ward clerk reg registrar physio physios dietetics theatre casualty irish scottish welsh english nice "
    "sign "
    "bair "
    "charnley recovery daily "
    "living weekly monthly nightly left right upper lower anterior posterior physician surgeon nurse "
    "january february march april may june july august september october november december jan feb mar apr jun jul aug "
    "sep sept oct nov dec "
    "sunday monday tuesday wednesday thursday friday saturday sun mon tue tues wed thu thurs fri sat per "
    "medtronic stryker biomet depuy synthes arthrex pfizer moderna lilly novartis ethicon covidien omron philips siemens "
    "mom mum dad mommy daddy grandma grandpa husb wife son daughter mother father sister brother "
    "hospitalist hospitalists nocturnist intensivist proceduralist telehealth telemedicine vick vicks".split()
)
_KINDS_OF_WORDS = re.compile(
    r"\w{4,}(?:osis|itis|a?emia|malacia|iae|oides?|oideus|ceps|algia|pathy|ectomy|otomy|ology|graphy|ation|ility|ments?|ingly)"
)


def is_public(value: str) -> bool:
    """Whether a telephone number is a toll-free line or an emergency number, or an address that of a government's site."""
    digits = re.sub(r"\D", "", value)
    national = digits.removeprefix("1")
    return digits in SHORT_CODES or (len(national) >= 9 and national.startswith(TOLL_FREE)) or bool(PUBLIC_HOSTS.search(value))


def is_medical(text: str, start: int, end: int, *, as_person: bool) -> bool:
    """Whether the name that stands in ``text`` from ``start`` to ``end`` is that of a disease, a sign or a thing.

    Where what stands near takes it ``as_person``, an eponym needs such a word behind it; so it does beside a given name.
    """
    words = re.sub(r"['’]s?\b", "", text[start:end]).casefold().replace("-", " ").split()
    return (
        bool(_NAMED_THING.match(text, end) or _PAIR.match(text, start))
        or _is_part_of_the_body(text, start)
        or is_a_test(text, start, end)
        or (not as_person and any(word in EPONYMS for word in words) and not lexicon().given.intersection(words) - EPONYMS)
    )


def _is_part_of_the_body(text: str, start: int) -> bool:
    """Whether what stands before a name is "foramen of" or the like."""
    return bool(_THING_OF.search(text, max(0, start - 24), start))


def is_a_test(text: str, start: int, end: int) -> bool:
    """Whether the name from ``start`` to ``end`` is that of a test, a score or a device, as what follows it says: "Braden 17"."""
    return text[start:end].casefold().rpartition(" ")[2].removesuffix("'s") in TESTS and bool(_RESULT.match(text, end))


def is_ordinary(word: str) -> bool:
    """Whether a word, alone or as the first of a compound, is one of language or medicine rather than a name."""
    first = word.casefold().partition("-")[0].strip(".,;:()")
    return first in ORDINARY or bool(_KINDS_OF_WORDS.fullmatch(first))
