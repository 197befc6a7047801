"""Dates below the year, addresses and ZIP codes."""

import re
from collections.abc import Iterator

import regex

from tasks.corpus.deidentify.allowlist import TESTS

_STATES = (
    "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX "
    "UT VT VA WA WV WI WY PR VI GU AS MP FM MH PW"
).replace(" ", "|")
STATE_NAMES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|"
    "Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|"
    "New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|South Carolina|"
    "South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming"
)
# Letters of any alphabet: Zürich, Łódź, São Paulo.
_LOWER = r"[\p{Ll}\p{M}]"
_CAPITALIZED = rf"\p{{Lu}}{_LOWER}+"
# "St. Louis", "Stratford upon Avon": up to the first word that is no part of a name.
_TOWN = (
    rf"(?:(?:Saint|Ste?|Ft|Mt|Port|Fort|Mount|New|Los|Las|San|Santa|El|La|Le)\.?[ \t])?{_CAPITALIZED}(?:-\p{{Lu}}?{_LOWER}+)*"
    rf"(?:[ \t](?:(?:de|da|do|del|la|of|upon|am|an der|im|sur|le|les)[ \t])?{_CAPITALIZED}){{0,2}}"
)
_CITY = rf"{_TOWN},?[ \t]+(?:{_STATES})\b"
# Street types of USPS Publication 28, appendix C1, without those that are common words of medicine.
_STREET = (
    "Alley|Ally|Ave(?:nue)?|Av|Bayou|Beach|Bend|Bluffs?|Blvd|Boulevard|Branch|Bridge|Brooks?|Bypass|Camp|Canyon|Cape|Causeway|Center|Centers|"
    "Circles?|Cir|Cliffs?|Club|Common|Commons|Corners?|Course|Courts?|Ct|Coves?|Creek|Crescent|Crest|Crossing|Crossroads?|Curve|Dale|Dam|"
    "Divide|Drives?|Dr|Estates?|Expressway|Extensions?|Falls?|Ferry|Fields?|Flats?|Fords?|Forest|Forges?|Forks?|Fort|Freeway|Gardens?|"
    "Gateway|Glens?|Greens?|Groves?|Harbors?|Haven|Heights|Highway|Hwy|Hills?|Hollow|Inlet|Islands?|Isle|Junctions?|Keys?|Knolls?|Lakes?|"
    "Land|Landing|Lane|Ln|Lights?|Loaf|Locks?|Lodge|Loop|Mall|Manors?|Meadows?|Mews|Mills?|Mission|Motorway|Mount|Mountains?|Orchard|"
    "Oval|Overpass|Parks?|Parkways?|Pkwy|Pass|Passage|Path|Pike|Pines?|Place|Pl|Plains?|Plaza|Points?|Ports?|Prairie|Radial|Ramp|Ranch|"
    "Rapids?|Rest|Ridges?|River|Roads?|Rd|Route|Row|Rue|Run|Shoals?|Shores?|Skyway|Springs?|Spurs?|Squares?|Sq|Station|Stravenue|Stream|"
    "Streets?|St|Summit|Terrace|Ter|Throughway|Trace|Track|Trafficway|Trail|Tunnel|Turnpike|Underpass|Unions?|Valleys?|Via|Viaduct|"
    "Villages?|Ville|Vista|Ways?|Wells?"
)
_STREET_NAME = rf"(?:[NSEW][EW]?\.?[ \t]+)?(?:(?:\p{{Lu}}[\p{{Ll}}\p{{M}}'’]+|\d+(?:st|nd|rd|th))[ \t]+){{1,3}}(?:{_STREET})\b\.?"
_WITHIN = r"(?:,?[ \t]+(?:(?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Bldg|Building|Room|Rm|Lot)\b\.?[ \t]*#?[ \t]*[\dA-Z]+|#[ \t]*\d+))?"
_TO_CITY = rf"(?:(?:,|[ \t]in)[ \t]+{_CITY}|(?:,|[ \t]in)[ \t]+{_TOWN}(?=[.,;\n]|$|[ \t]+(?:with|and|who|where|since|by|for|alone|\d)))?"
_BOX = rf"P\.?[ \t]?O\.?[ \t]+Box[ \t]+\d+{_TO_CITY}"
_LIVES = (
    r"(?:liv(?:es?|ed|ing)|resid(?:es?|ed|ing)|resident|moved|moving|grew up|born|stays|located|transferred|hospital"
    r"|home|house|native|originally|visiting|flew|drove|relocated|returned|works?|family|hails|immigrated"
    r"|commutes?|vacation\w*)"
)
NUMBERED, FIVE_DIGITS = re.compile(r"\d[A-Z]?[ \t]+[A-Z\dnsew\u00c0-\uffff]|Box|BOX|(?i:address)"), re.compile(r"\d{5}")
STATED = re.compile(r",[ \t]+[A-Z]{2}\b")
LIVES = frozenset(
    "live lives lived living reside "
    "resides resided residing resident moved moving grew born stays located transferred hospital home house native "
    "originally visiting flew drove relocated "
    "returned work works family hails immigrated commute commutes vacation vacationed vacationing".split()
)
COUNTY = frozenset(("county", "parish"))
# As other languages write them: Königstraße 12, 12 rue de la Paix, Calle Núñez 5, Via Roma 3, ul. Długa 5, Atatürk Cad. 7.
_NUMBER = r"\d{1,4}(?:[ /]?[a-zA-Z])?\b"
_NAMED = rf"(?:\p{{Ll}}{{1,4}}['’ ][ ]?){{0,3}}{_CAPITALIZED}(?:(?:[ '’-]\p{{Ll}}{{1,4}}){{0,2}}[ '’-]{_CAPITALIZED}){{0,3}}"
_STREETS_ABROAD = (
    (
        rf"{_CAPITALIZED}(?:(?:straße|strasse|str\.|gasse|allee|platz|weg)|[ -](?:Straße|Strasse|Str\.|Gasse|Allee|Platz|Weg))"
        rf"[ \t]+{_NUMBER}",
        regex.compile(r"(?:[Ss]tra(?:ß|ss)e|[Ss]tr\.|[Gg]asse|[Aa]llee|[Pp]latz|[Ww]eg)[ \t]+\d"),
    ),
    (
        rf"\d{{1,4}}(?:[ ]?bis|[ ]?ter)?,?[ \t]+(?:rue|avenue|boulevard|place|allée|chemin|quai|impasse)[ \t]+{_NAMED}",
        frozenset("rue avenue boulevard place allée chemin quai impasse".split()),
    ),
    (
        rf"(?:Calle|C/|Avda\.?|Avenida|Plaza|Paseo|Via|Viale|Piazza|Corso|Largo|Vicolo)[ \t]+{_NAMED},?[ \t]+(?:n\.?[ ]?[º°]?[ ]?)?"
        rf"{_NUMBER}",
        frozenset("calle c avda avenida plaza paseo via viale piazza corso largo vicolo".split()),
    ),
    (rf"(?:ul|pl)\.[ \t]*{_NAMED}[ \t]+{_NUMBER}(?:/\d+)?(?:[ ]?m\.[ ]?\d+)?", frozenset(("ul", "pl"))),
    (
        rf"(?:{_CAPITALIZED}[ \t]+){{1,3}}(?:Caddesi|Cad\.|Sokak|Sokağı|Sok\.|Bulvarı|Mahallesi|Mah\.)[ \t]+(?:[Nn]o[:.]?[ \t]*)?{_NUMBER}",
        frozenset("caddesi cad sokak sokağı sok bulvarı mahallesi mah".split()),
    ),
)
ADDRESSES = (
    (regex.compile(rf"\b(?P<span>\d{{1,6}}(?:-\d+)?[A-Z]?[ \t]+{_STREET_NAME}{_WITHIN}{_TO_CITY})"), NUMBERED),
    (regex.compile(rf"\b(?P<span>{_BOX})"), NUMBERED),
    (
        regex.compile(
            rf"\b(?P<span>(?:(?:RR|R\.R\.|RFD|HC|Star Route)[ \t]+#?\d+,?[ \t]+Box[ \t]+\d+\w?|Rural Route[ \t]+#?\d+){_TO_CITY})"
        ),
        frozenset(("rural", "box")),
    ),
    (
        regex.compile(rf"\b(?P<span>{_STREET_NAME}[ \t]+(?:and|&|at)[ \t]+{_STREET_NAME})"),
        frozenset(("near", "corner", "and", "at", "intersection")),
    ),
    (regex.compile(r"(?i:\baddress\b[:= -]*(?:is[ \t]+)?)(?P<span>\d+[^\n;]{5,80}?)(?=[;\n]|\.\s|\.?$)"), NUMBERED),
    (regex.compile(rf"(?i:\b{_LIVES})[ \t]+(?:on|at)[ \t]+(?P<span>{_STREET_NAME})"), LIVES),
    (regex.compile(rf"\b(?P<span>{_TOWN}),[ \t]+(?:{STATE_NAMES}|{_STATES})[ \t]+\d{{5}}\b"), FIVE_DIGITS),
    *(
        (regex.compile(rf"(?<![\w-])(?P<span>{street}(?:,[ \t]+\d{{4,5}}[ \t]+{_CAPITALIZED})?)"), prefilter)
        for street, prefilter in _STREETS_ABROAD
    ),
)
# House and flat numbers as they are written elsewhere, with the road behind them: "Flat 3, 12 High Street", "H.No. 12-3-45, MG Road".
_NUMBER_ELSEWHERE = r"(?:(?=[A-Z]?[/-]?\d)[\dA-Z][\w/-]{0,8}|(?<![\w])[A-Z])"  # a letter that nothing divides from the word before is none
ELSEWHERE = regex.compile(
    r"\b(?P<span>(?:(?:Flat|Unit|Apt|Plot|Door|House)\.?[ ]?(?:No\.?)?|H\.?[ ]?No\.?)[ ]?#?"
    rf"{_NUMBER_ELSEWHERE},[ ]?(?:[\dA-Z][\w/-]{{0,8}},?[ ])?"
    rf"(?:{_STREET_NAME}|{_CAPITALIZED}(?:[ ]{_CAPITALIZED}){{0,3}})(?:,[ ]?{_TOWN})?)"
)
THREE_DIGITS = re.compile(r"\d{3}")
# Of the United Kingdom and Canada, Ireland, Australia, India, Germany and Singapore: LS1 4AP, K1A 0B1, K89 0IE, VIC 3053, PIN 560001,
# D-80331. Each with what a text must hold for it.
POSTCODES = (
    (
        re.compile(
            r"(?<![\w-])(?P<span>[A-PR-UWYZ][A-HK-Y]?\d[A-Z\d]?[ ]\d[ABD-HJLNP-UW-Z]{2}"
            r"|[ABCEGHJ-NPRSTVXY]\d[A-CEGHJ-NPRSTV-Z][ ]\d[A-Z]\d)(?![\w-])"
        ),
        re.compile(r"\d[A-Z\d]? \d[A-Z]"),
    ),
    (
        re.compile(
            r"(?<![\w-])(?P<span>[ACDEFHKNPRTVWXY]\d[\dW][ ](?!HR|RR|PR"
            r"|BP)(?=[A-Z]*\d)(?=\d*[A-Z])[0-9AC-FHKNPRTV-Y][0-9A-Z]{3})(?![\w-])"
        ),
        re.compile(r"\d[\dW] [A-Z\d]{4}"),
    ),
    (re.compile(r"\b(?:NSW|VIC|QLD|TAS|ACT|Vic|Qld)\.?[ ]+(?P<span>\d{4})(?!\d)"), THREE_DIGITS),
    (re.compile(r"(?i:\b(?:pin(?: ?code)?|post ?code|plz)|\bD-)[ :.-]*(?P<span>\d{3}[ ]?\d{3}|\d{4,5})(?!\d)"), THREE_DIGITS),
    (re.compile(r"\bSingapore[ ](?P<span>\d{6})(?!\d)"), THREE_DIGITS),
)
# Marks of places that are none where the words are those of a department or of every day.
TOWNS = (
    (regex.compile(rf"(?i:\b{_LIVES})[ \t]+(?:in|to|from|of|near|outside)[ \t]+(?!the\b)(?P<span>{_CITY}|{_TOWN})"), LIVES),
    (
        regex.compile(
            rf"\b(?P<span>{_CAPITALIZED}(?:[ \t]{_CAPITALIZED})?,[ \t]+(?!(?:MD|DO|PA|MS|RN|MI|ID|PR|ND|AS|GA|CT|VA|LA|AR"
            rf"|OR|ME|IN|HI|PT|OT)\b(?![ ,]+(?:\d{{5}}|USA)))(?:{_STATES}))\b(?! and\b)"
        ),
        STATED,
    ),
    (regex.compile(rf"\b(?P<span>{_CAPITALIZED}(?:[ \t]{_CAPITALIZED})?[ \t]+(?:County|Parish))\b"), COUNTY),
    (
        regex.compile(
            rf"(?i:\b(?:city|town|village|suburb|borough) of|\btrip to|\btravel\w* to|\bvacation\w* in|\bvisit\w* (?:to"
            rf"|in))[ \t]+(?P<span>{_TOWN})"
        ),
        frozenset(
            "city town village suburb borough trip travel traveled travelled traveling vacation vacationed visit visiting visited".split()
        ),
    ),
)
_ZIP = r"\d{5}(?:-\d{4})?(?![\d-])"
ZIP_CODES = (
    re.compile(
        rf"\b(?:(?!(?:MD|ID|OR|IN|PA|MS|ME|HI|OK|CO|AS)\b)(?:{_STATES})|(?<=,[ ])(?:{_STATES})"
        rf"|{STATE_NAMES})\)?,?[ \t]+(?P<span>{_ZIP})(?![ ]?(?:units?|mg|mcg|IU|cells|mL|ml|/))"
    ),
    re.compile(
        rf"(?i:\b(?:zip|postal|postcode)(?:\s?code)?(?:\+4)?)(?:[:=/ -]|(?i:code|of|residence|is|zip|postal|on|the|chart"
        rf"|file|record|was|listed|as)\b)*(?P<span>{_ZIP})"
    ),
    re.compile(rf"\b(?P<span>{_ZIP})(?=\s+(?:by\s+)?\(?(?:\w+ )?(?i:zip))"),
    re.compile(r"(?<![\d-])(?P<span>\d{5}-\d{4})(?![\d-])"),
)

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|"
    r"Dec(?:ember)?|JAN(?:UARY)?|FEB(?:RUARY)?|MAR(?:CH)?|APR(?:IL)?|MAY|JUNE?|JULY?|AUG(?:UST)?|SEPT?(?:EMBER)?|OCT(?:OBER)?|NOV(?:EMBER)?|DEC(?:EMBER)?)\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?i:st|nd|rd|th)?"
_M, _D, _Y = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])", r"(?:(?:18|19|20)\d\d)"
_WEEKDAY = r"(?:(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?,?[ \t]+)?"
_WEEKDAY_BEFORE = r"(?:\b(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?,?[ ])?"
_TIME = r"(?:(?:,?[ \t]+(?:at[ \t]+)?|T)\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?(?:\s?[AaPp]\.?[Mm]\b\.?)?Z?)?"
# Words that make a day of a month of two numbers; those of the second row need a number that no score or strength has.
_ON = (
    r"\b(?:on|dated?|since|until|till|as of|(?:last )?(?:visit|seen|admitted|discharged)|lmp|dob|d\.o\.b\.|born"
    r"|scheduled(?: for)?|due(?: on)?|collected"
    r"|signed|by|before|after|through|thru|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?|day of|date "
    r"of \w+|starting|beginning|effective"
    r"|week of|expires?|exp|[dt]|d[/.]?t|dd|dt|td|dos|doa|dod)\.?"
)
_PERHAPS_ON = r"\b(?:from|to|given|surgery|received|between|and|at|last|next|for|this|in)"
_MEASURED = (
    r"(?!\s?(?:NS\b|D5|LR\b|bottles?|GPC|GNR|sets?\b|=|fraction|cmH2O|breath|scale|mg|mL|%|of\b|points?|out|times|in\b|days?|weeks?|hours?|tab|cap|cup|dose|strength|power|inch|pack|ppd|pint|bilat|right|left|hip|knee|"
    r"ankle|elbow|shoulder|wrist|pain|throughout|proximal|distal|systolic|diastolic|murmur|reflex|pulses?|with\b.{0,12}strength|L\b|l\b|to\s\d+/\d+))"
)
# Days of a month that are also what scores are out of: Glasgow 15, Braden 23, PHQ-9 27, MMSE 30, GAD-7 21, Tinetti 28, NRS 10, Berg 56.
_HOLIDAYS = (
    r"(?:Christmas|New Year['’]?s?|Boxing|Easter(?: Sun| Mon)?|Independence|Labor|Memorial|Veterans|Canada|Australia"
    r"|ANZAC|Valentine['’]?s|Mother['’]?s|Father['’]?s) ?[Dd]ay|Christmas Eve|Thanksgiving|Halloween|Diwali|Eid"
)
_NO_SCORE = r"(?:(?!6/18)(?:0?[1-9]|1[0-2])/(?:1[34789]|2[2569]|31))"
_EIGHT = r"(?:(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
# Dates of eight digits, with a label or a time.
EIGHT_DIGITS = re.compile(r"\d{8}")
RUN_TOGETHER_DATES = (
    re.compile(rf"(?<![\w/.-])(?P<span>{_EIGHT}(?:T?(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?)?)(?![\w/-]|\.\d)"),
    re.compile(
        r"(?i:\b(?:dob|d\.o\.b\.?|born|date of birth|birth ?date)[: ]{1,3})(?P<span>(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d"
        r"|3[01])(?:19|20)\d\d)(?!\d)"
    ),
)
NUMERIC_DATES = (
    re.compile(rf"(?<![\d/.-])(?P<span>{_WEEKDAY_BEFORE}{_M}(?P<s>[/.-]){_D}(?P=s){_Y}{_TIME})(?![\d/])"),
    re.compile(rf"(?<![\d/.-])(?P<span>{_WEEKDAY_BEFORE}{_D}(?P<s>[/.-]){_M}(?P=s){_Y}{_TIME})(?![\d/])"),
    re.compile(rf"(?<![\d/.-])(?P<span>{_WEEKDAY_BEFORE}{_M}(?P<s>[/-]){_D}(?P=s)\d\d{_TIME})(?![\d/-])(?![ ](?:wks?|weeks?)|, [a-z]+ \d)"),
    re.compile(rf"(?<![\d/.-])(?P<span>{_WEEKDAY_BEFORE}{_D}(?P<s>[/-]){_M}(?P=s)\d\d{_TIME})(?![\d/-])(?![ ](?:wks?|weeks?))"),
    re.compile(rf"(?<![\d/.-])(?P<span>{_Y}(?P<s>[/.-])(?:0[1-9]|1[0-2])(?P=s)(?:0[1-9]|[12]\d|3[01]){_TIME})(?!\d)"),
    re.compile(rf"(?i:{_ON})[:\s]+(?P<span>(?!1/2\b){_M}/{_D})(?![\d/]){_MEASURED}"),
    re.compile(rf"(?i:{_PERHAPS_ON})[:\s]+(?P<span>{_NO_SCORE})(?![\d/]){_MEASURED}"),
    re.compile(rf"(?i:\b(?:from|between)) (?P<span>{_M}/{_D})(?= (?:to|and|through|until) {_NO_SCORE}(?![\d/]))"),
    re.compile(rf"(?<![\d/.-])(?<!(?i:pain|core|ngth) )(?P<span>{_M}/{_D})(?=[ ,]+(?:at )?\d{{1,2}}:\d\d)"),
    re.compile(
        rf"(?P<span>\b(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?,?[ ]{_M}[/-]{_D}(?:[/-](?:{_Y}"
        rf"|\d\d))?{_TIME})(?![\d/])"
    ),
    # With a hyphen behind what is done on a day.
    re.compile(
        rf"(?i:\b(?:on|admitted|discharged|dated?|seen|visit|dos|since|until|collected))[ :]+(?P<span>{_M}-(?:1[3-9]|2\d"
        rf"|3[01]))(?![\d-]|[./]\w)(?![ ]?(?:mg|mcg|mL|ml|L|%|units?|days?|weeks?|hours?|min|sec|times|pack|cm|mm|kg|lb))"
    ),
    # The day first: 23/4, and not a pressure of ventilation.
    regex.compile(
        rf"(?i:{_ON}|\b(?:from|to|given|surgery|received|between|at|last|next|this|adm|admission|clinic|review|rv|op|operation|tci|d/c|dc|disch|booked|appt|"
        rf"appointment|delivery|scan|usg|done|repeat))[:\s]+(?<!(?i:PAP|\bPS|placed)[ ](?:to|at|on)[ ])(?P<span>(?:1[3-9]"
        rf"|2\d|3[01])/(?:0?[1-9]|1[0-2]))(?![\d/]){_MEASURED}"
    ),
    # Before a test or with a time: "3/4 CT head", "3/4 @ 0830", "(3/4-3/7)".
    re.compile(
        rf"(?<![\d/.-])(?<!(?i:pain|core|ngth) )(?P<span>{_M}/{_D})(?=:?[ ](?:CT|MRI|MRA|US|XR|CXR|KUB|EGD|EKG|ECG|TTE"
        rf"|TEE|echo|labs?|cath|PET|bcx"
        rf"|ucx|BCx|UCx|blood c|urine c|"
        rf"colonoscopy|biopsy|@|at[ ]\d{{1,2}}:?\d\d\b|(?:[01]\d|2[0-3])[0-5]\d\b))"
    ),
    # Behind a test or what is done to a patient: "Cx 2/28", "line placed 2/4", "RTC 7-21".
    re.compile(
        rf"(?i:\b(?:ct|mri|mra|xr|cxr|kub|hus|echo|tte|tee|egd|colonoscopy|cysto\w*|bronch\w*|eeg|lp|biopsy|bx|cath|pet|mammo\w*|dexa|pft|surgery|"
        rf"placed|inserted|removed|started|stopped|extubated|intubated|trach|picc|photo|ppd|tb test|done|drawn|sent"
        rf"|admit(?:ted)?|discharged?|d/?c(?:['’]?d| to \w+)?"
        rf"|rtc|f/u|appt|follow[- ]up|review|seen|last|readmitted|transferred|listed))[ :]+(?P<span>(?!1/2\b){_M}/{_D})(?![\d/]){_MEASURED}"
    ),
    re.compile(
        rf"(?i:\b(?:rtc|f/u|return|appt|discharged|admitted|due|d/c))[ :]+(?P<span>{_M}-(?:1[3-9]|2\d|3[01]))(?![\d-]|/"
        rf"|[ ]?(?:days?|weeks?|wks?|months?|d\b|hours?|hpf))"
    ),
    re.compile(rf"(?i:\b[bu]?cx)[ :]+(?P<span>{_NO_SCORE})(?![\d/])"),
    # A month and a year of two digits that no day has: 12/49.
    re.compile(
        r"(?i:\b(?:inserted|placed|removed|exp(?:ires|iry)?|dated?|since|due|last|in|from|until|lmp"
        r"|done))[ :]+(?P<span>(?:0?[1-9]|1[0-2])/(?:3[2-9]|[4-9]\d))(?![\d/])"
    ),
    # 03/2019, 3.14.21 and 14.3.21, 20190321 with a label or a time.
    re.compile(r"(?<![\d/.-])(?P<span>(?:0?[1-9]|1[0-2])/(?:19[3-9]\d|20[0-4]\d))(?![\d/])"),
    re.compile(rf"(?<![\d/.§vV-])(?<!ersion )(?P<span>(?:{_M}\.{_D}|{_D}\.{_M})\.(?:[0-4]\d|[5-9]\d)){_TIME}(?![\d]|\.\d)"),
    re.compile(
        r"(?i:\b(?:dob|d\.o\.b\.?|date of (?:birth|death|service|admission|discharge)|lmp)\W{0,3})"
        rf"(?P<span>(?:{_Y}[01]\d[0-3]\d|[01]?\d[.-][0-3]?\d[.-]\d\d))"
    ),
)
# A day that no score, node count or day of treatment has.
BARE_DAY = regex.compile(
    r"(?<![\d/.-])(?<!(?i:day|ycle|sion|isit|node|odes|week|tion|dose|bout|ores|oint|ints|step) )(?<!(?i:score"
    r"|scale) of )(?<!(?i:score|scale|ishop|pgars?|titers?|titres?|vdrl|rpr|\bva|bcva|ucva|vision|nodes?|cores|in) [(]?)"
    rf"(?P<span>{_NO_SCORE})(?![\d/])(?!\s?(?:%|of\b|nodes?|lymph|cores?|positive|sites?|joints?|days?|visits?|sessions?|weeks?|items?"
    rf"|points?|correct|fractions?|doses?|in\b)){_MEASURED}"
)
_FULL_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_ORDINALS = (
    "(?:twenty-|thirty-)?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|tenth|eleventh|twelfth|thirteenth|fourteenth|fifteenth"
    "|sixteenth|seventeenth|eighteenth|nineteenth|twentieth|thirtieth"
)
_MONTHS_ABROAD = (
    "Januar|Jänner|Februar|März|Mai|Juni|Juli|Oktober|Dezember|janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre"
    "|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre"
    "|ottobre|dicembre"
)
MONTHS = frozenset(re.findall("[^\\W\\d_]+", f"{_FULL_MONTH}|{_MONTHS_ABROAD}".lower())) | frozenset(
    "jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
WRITTEN_DATES = (
    # A month is an element of a date, as a day is (45 CFR 164.514(b)(2)(i)(C)).
    re.compile(
        r"\b(?i:in|since|until|till|last|next|this|early|late|mid|mid-|end of|beginning of|during|through|by|before|after|from|of)[ ]"
        rf"(?P<span>(?:{_FULL_MONTH}))\b(?![ ]\d)(?!['’])"
    ),
    re.compile(rf"\b(?:the )?(?P<span>(?i:{_ORDINALS})(?: day)?(?: of)? (?:{_FULL_MONTH})(?:,? {_Y})?)\b"),
    re.compile(rf"(?<![\w.])(?P<span>\d{{1,2}}\.?[ ](?:de )?(?:{_MONTHS_ABROAD})(?:[ ](?:de )?{_Y})?)(?!\w)"),
    re.compile(
        rf"(?<![\w.-])(?P<span>(?:0?[1-9]|[12]\d|3[01])[ -]?(?i:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov"
        rf"|dec)[ -]?(?:{_Y}|\d\d){_TIME})(?!\w)"
    ),
    re.compile(r"(?<![\w.-])(?P<span>(?:0?[1-9]|[12]\d|3[01])-(?i:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec))(?![\w])"),
    re.compile(rf"\b(?P<span>{_MONTH}[ ]?['’]\d\d)(?!\d)"),
    re.compile(rf"(?<![\w-])(?P<span>{_MONTH}-\d\d)(?![\d-]|\.\d)"),
    re.compile(
        rf"\b(?P<span>{_MONTH}[ ]{_DAY}[ ]?[-–][ ]?{_DAY}(?:,[ ]{_Y})?)(?![\d-]|[ ]?(?:mg|mcg|mL|ml|%|units?|pm|am|days?|weeks?|hours?))"
    ),
    re.compile(r"\b(?P<span>(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day(?:,)? the \d{1,2}(?:st|nd|rd|th))\b"),
    re.compile(rf"\b(?P<span>(?:{_HOLIDAYS}),?(?: of| in)? {_Y})\b"),
    re.compile(rf"\b(?P<span>{_WEEKDAY}{_MONTH}[ \t]+{_DAY},?[ \t]+{_Y}{_TIME})\b"),
    re.compile(rf"\b(?P<span>{_WEEKDAY}{_DAY}(?:[ \t]+of)?[ \t-]+{_MONTH}(?:,?[ \t-]+|,)(?:{_Y}|['’]?\d\d(?!\d)){_TIME})"),
    re.compile(rf"\b(?P<span>{_WEEKDAY}{_MONTH}[ \t]+{_DAY})\b(?![-–]\d|\s?[-–]\s?\d+\s\w){_MEASURED}"),
    re.compile(rf"\b(?P<span>{_WEEKDAY}{_DAY}(?:[ \t]+of)?[ \t]+(?!(?i:may)\b){_MONTH})(?![A-Za-z])"),
    re.compile(rf"\b(?P<span>{_MONTH},?[ \t]+(?:of[ \t]+)?{_Y})\b"),
)
_WORD_BEFORE = re.compile(r"(\w+)[ :]{1,2}$")


def not_of_a_test(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, unless the name of a test or a score stands before it: "Ishihara 11/13"."""
    before = _WORD_BEFORE.search(text, max(0, start - 20), start)
    if not before or before[1].casefold() not in TESTS:
        yield start, end
