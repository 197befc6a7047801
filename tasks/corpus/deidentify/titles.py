"""Titles, roles, labels and kin in English, German, French, Spanish, Italian, Polish and Turkish, as parts of patterns.

The patterns that use them see text in composed form (NFC). It knows nothing of the form of a name.
"""

# Before names alone, with or without a full stop.
TITLES = (
    "Dr Drs Mr Mrs Ms Miss Mx Prof Professor Sir Rev dr prof mgr "
    "Herr Herrn Frau Fräulein Doktor Professorin Priv.-Doz "
    "Mme Mmes Mlle Mlles Mgr Monsieur Madame Mademoiselle Docteur Professeur "
    "Sra Srta Sres Dña Dra Señor Señora Señorita Doña Doctor Doctora "
    "Sig.ra Sig.na Sig.ri Sigra Signor Signora Signore Signorina Dott Dott.ssa Dottssa Dottor Dottore Dottoressa Dr.ssa Prof.ssa "
    "Smt Shri Sri Kumari Shrimati Datuk Dato Ustad "
    "Pani Pana Panu Panią Panem Państwo lek piel Bayan Sayın Doç Uzm"
).split()
# Within a chain of titles: "Dr. med. dent.", "dr hab. n. med.", "Prof. Dr. rer. nat.".
TITLE_ADDED = r"(?:med|dent|univ|rer|nat|habil|hab|phil|vet|h|c|n)\."
# In capitals, before names in capitals alone.
TITLES_IN_CAPITALS = "DR MR MRS MS MISS PROF HERR HERRN FRAU MME MLLE SRA DRA SIG.RA DOTT PANI BAYAN SAYIN".split()
# Titles that are also something else (French gauge, a pulse rate, an initial, "senior", a verb): case counts, and so does what follows.
UNSURE_TITLES = (
    "Pr. Pr Sr. Sr Don Sig. Fr. Hr. Sn. Pan Bay infirmier infirmière enfermera enfermero infermiera infermiere "
    "pielęgniarka pielęgniarkę hemşire Hemşire"
).split()
# A letter that also ends a sentence ("vitamin M."): only where a line or a sentence begins, or behind a French word.
MONSIEUR = r"MM?\."
BEFORE_MONSIEUR = (
    r"(?:^|[\n.!?:(]|\b(?:[Dd]e|[Ee]t|[Àà]|[Pp]ar|[Cc]hez|[Pp]our|[Qq]ue|[Vv]u|[Vv]ois|[Vv]oir|[Rr]evu|[Rr]eçu|[Aa]vec|[Ss]ur|[Cc]her|[Ee]st|hier|jour"
    r"|suivi|adressé?|examiné|concernant|selon|auprès|chirurgien|patient|par le|dont|où|si|car|mais|ou|comme))"
)
# Behind a name.
TITLES_BEHIND = "Hanım Bey Hanımefendi Beyefendi".split()

KIN = (
    r"(?:son|daughter|mother|father|sister|brother)-in-law|step(?:son|daughter|mother|father|mom|dad|sister|brother)"
    r"|husband|wife|spouse|partner|son|daughter|mother|father|mom|dad|sister|brother|aunt|uncle|niece|nephew|cousin|grand(?:mother|father|"
    r"son|daughter)|guardian|fiancée?|boyfriend|girlfriend|neighbou?r|caregiver|friend"
)
# The words of which a text must hold one.
KIN_WORDS = (
    "son daughter mother father sister brother stepson stepdaughter stepmother stepfather stepmom stepdad stepsister "
    "stepbrother husband wife "
    "spouse partner mom dad aunt uncle niece nephew cousin grandmother grandfather grandson granddaughter guardian "
    "fiancé fiancée boyfriend "
    "girlfriend neighbor neighbour caregiver friend"
).split()
# Of other languages: what follows must not be an ordinary word.
KIN_ABROAD = (
    "épouse époux mère père fille fils mari frère sœur soeur tante oncle grand-mère grand-père conjoint conjointe compagne "
    "esposa esposo marido mujer hija hijo madre padre hermana hermano abuela abuelo tía tío sobrina sobrino nieta nieto "
    "moglie marito figlia figlio fratello sorella nonna nonno zia zio compagna compagno "
    "żona żonę żony żoną mąż męża mężem syn syna synem córka córkę córki córką matka matkę matki ojciec ojca siostra siostrę siostry "
    "bratem eşi kızı oğlu annesi babası kardeşi ablası ağabeyi"
).split()
# German ones open with a capital as every noun does, so that a pronoun or an article must stand before them.
KIN_IN_GERMAN = (
    "Ehefrau Ehemann Ehegatte Ehegattin Mann Frau Sohn Tochter Mutter Vater Bruder Schwester Oma Opa Onkel Tante Neffe Nichte Enkel "
    "Enkelin Lebensgefährte Lebensgefährtin Freund Freundin Betreuer Betreuerin Partner Partnerin"
).split()
BEFORE_KIN_IN_GERMAN = r"(?:[Ss]ein|[Ii]hr|[Mm]ein|[Uu]nser|[Ee]in|[Dd])(?:e[rmns]?|as|ie)?"

# Labels, behind which ":", "=" or "-" stand.
LABELS = (
    r"(?:patient|client|resident|maiden|preferred|other|birth|legal)(?:'s)? names?|pt(?:\.|(?= name))? name|(?:mother"
    r"|father|guarantor|subscriber|contact|provider|physician)(?:'s)? name"
    r"|full name|(?:referring|attending|ordering|primary care|consulting|admitting|treating|family|covering|emergency) "
    r"(?:physician|provider|doctor|md|contact)"
    r"|(?:surname|forenames?|first name|last name|given names?(?:\(s\))?|family names?|pat\.?)|next of kin|nok|emergency contact"
    r"|(?:(?:co-?)?sign|dictat|transcrib|authenticat|verif|report|attest|witness|author|typ|enter|record|prepar|complet"
    r"|print|edit|scann|creat)(?:i?ed|ted)? ?by|prepared for"
    r"|(?:electronically |digitally |e-?)?(?:co-?)?signed"
    # German
    r"|patient(?:in|enname)|(?:vor|nach|zu|familien|geburts|ruf)name|(?:name, )vorname|haus(?:arzt|ärztin)"
    r"|(?:behandelnde[rs]? )?(?:arzt|ärztin)"
    r"|(?:ober|chef|stations)(?:arzt|ärztin)|operateur(?:in)?|überweiser|einweiser|angehörige[rn]?|betreuer(?:in)?"
    r"|ansprechpartner(?:in)?|gez\.?"
    # French
    r"|patiente|nom(?: de (?:naissance|famille|jeune fille)| d['’]usage| du patient| et prénoms?)?|prénoms?|médecin(?: traitant| référent)?"
    r"|chirurgien(?:ne)?|infirmi(?:er|ère)|personne (?:à prévenir|de confiance)|signé(?: par)?"
    # Spanish
    r"|paciente|nombres?(?: y apellidos?| completo| del paciente)?|(?:primer |segundo )?apellidos?"
    r"|médic[oa](?: tratante| de cabecera)?|ciruja(?:no|na)"
    r"|enfermer[ao]|familiar|firmado(?: por)?|acompañante"
    # Italian
    r"|paziente|nome(?: e cognome| del paziente)?|cognome(?: e nome)?|medico(?: curante| di base| di famiglia)?|chirurgo"
    r"|infermier[ea]|firmato(?: da)?"
    # Polish
    r"|pacjent(?:ka)?|imi(?:ę|ona)(?: i nazwisko)?|nazwisko(?: i imię| rodowe| panieńskie)?"
    r"|lekarz(?: prowadzący| rodzinny| kierujący)?|pielęgniarka"
    r"|podpis(?:ał|ała|ano)?|opiekun(?:ka)?"
    # Turkish
    r"|hasta(?:nın)?(?: adı)?(?: soyadı)?|(?:adı?|isim)(?:[ -/]*soyadı?)?|soyadı?|dokto(?:r|ru)|hekim(?:i)?|hemşire"
    r"|hasta yakını|refakatçi|imza"
)

# Labels of roles, behind which also a department, "none" or a task can stand.
ROLE_LABELS = (
    r"name|[a-z]{4,}(?:ologist|iatrist|apist|omist|icist|ician)|attendings?|surgeons?(?:\(s\))?|(?:assistant|co-?surgeon"
    r"|(?:first|second|1st|2nd) assist(?:ant)?)|an(?:a)?esth(?:et)?(?:ist"
    r"|esiologist|esia)|resident|intern|fellow|registrar"
    r"|consultant|trainee|house officer|sho|hospitalist|pcp|gp|provider|clinician|physician|doctor|radiologist|pathologist|cardiologist"
    r"|(?:seen|performed|reviewed|interpreted|read|ordered|requested|referred|examined|assessed|evaluated|accompanied"
    r"|checked|done|given) by"
    r"|attn|dict(?:ated|ation|ator)?(?: by)?|trans(?:cribed|criptionist)?(?: by)?|typist|author|scribe|witness(?:es)?"
    r"|attendees?|copies(?: to)?"
    r"|interpreter|case manager|social worker|therapist|pharmacist|midwife|nurse(?: in charge)?|charge nurse|technician"
    r"|technologist|informant"
    r"|referring|submitting|ordering|requesting|read(?:ing)?|operator|leader|recorder|supervis(?:or|ing)|sonographer|doula|assistant|circulat(?:or|ing)"
    r"|scrub|perfusionist|tech|preceptor|attested|consult(?:ing)?|admitting|per pharmacy|pharmacy|husband|wife|spouse"
    r"|partner|son|daughter|mother|father"
    r"|sister|brother|mom|dad|sibling|emergency|visitor|driver|escort"
    r"|care(?:r|giver| coordinator)|guardian|proxy|hcp|poa|spokesperson|historian|contact|teacher|coach"
)
# Labels that stand for other things as well: a chief complaint, physical therapy, what a letter is about.
UNSURE_LABELS = r"cc|re|regarding|patient|pt|from|to|dear"

# A person behind whom a surname may stand without a label, if a sentence goes on as one about a person does.
PATIENT = r"[Pp]atient(?:in|e)?|PATIENT|[Pp]t|[Pp]aciente|[Pp]aziente|[Pp]acjent(?:ka)?|[Hh]asta"
PATIENTS = "patient patientin patiente pt paciente paziente pacjent pacjentka hasta".split()
_VERBS = (
    "is was has had does did denies denied reports reported states stated presents presented complains complained endorses endorsed "
    "describes described notes noted admits admitted underwent undergoes received receives tolerated tolerates appears appeared came "
    "comes arrived returned returns called calls says said tells told takes took lives lived smokes smoked drinks works worked will "
    "would can could may might should must needs needed feels felt remains remained continues continued developed develops "
    "experienced experiences requests requested refuses refused declined declines understands understood agrees agreed verbalized "
    "verbalizes went gets got seems walks walked sleeps eats weighs uses used wants wanted wishes suffers suffered started stopped "
    "recalls recalled ambulated ambulates voided rated rates fell improved who whose died ist war hat hatte wurde wird klagt klagte "
    "berichtet berichtete gibt gab kam kommt stellt stellte verneint negiert lebt est était avait se présente rapporte nie consulte "
    "fue ha niega refiere presenta acude era nega riferisce lamenta zgłasza podaje neguje jest był była geldi başvurdu"
)
GOES_ON = (
    rf"(?=[ ]+(?:{'|'.join(_VERBS.split())}|c/o|è)(?![\p{{L}}\p{{M}}])|,[ ]+(?:an?|who|whose|the|aged?|\d)(?![\p{{L}}\p{{M}}])"
    r"|[ ]*\((?:\d|[MF]\b|DOB|MRN)|[ ]w/)"
)
HAS = r"(?=['’]s(?![\p{L}\p{M}]))"
