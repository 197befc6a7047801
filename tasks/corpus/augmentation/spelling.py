"""UK and US spelling, word by word, from a table of words that differ in nothing else."""

import re

# UK to US. Words whose two spellings can be two words (practice, metre and meter, programme) are left out.
_PAIRS = """
anaemia anemia|anaemic anemic|anaemias anemias|ischaemia ischemia|ischaemic ischemic|leukaemia leukemia|leukaemias leukemias
leukaemic leukemic|hypoglycaemia hypoglycemia|hyperglycaemia hyperglycemia|hypoglycaemic hypoglycemic|hypokalaemia hypokalemia
hyperkalaemia hyperkalemia|hyponatraemia hyponatremia|hypernatraemia hypernatremia|hypocalcaemia hypocalcemia
hypercalcaemia hypercalcemia|septicaemia septicemia|bacteraemia bacteremia|viraemia viremia|toxaemia toxemia|uraemia uremia
uraemic uremic|hyperuricaemia hyperuricemia|hyperlipidaemia hyperlipidemia|hypercholesterolaemia hypercholesterolemia
polycythaemia polycythemia|thalassaemia thalassemia|galactosaemia galactosemia|acidaemia acidemia|haemoglobin hemoglobin
haemorrhage hemorrhage|haemorrhages hemorrhages|haemorrhagic hemorrhagic|haemophilia hemophilia|haemolysis hemolysis
haemolytic hemolytic|haematoma hematoma|haematomas hematomas|haematuria hematuria|haematology hematology|haemangioma hemangioma
haemangiomas hemangiomas|haemodialysis hemodialysis|haemostasis hemostasis|haemochromatosis hemochromatosis|haemosiderin hemosiderin
oedema edema|oedematous edematous|oesophagus esophagus|oesophageal esophageal|oesophagitis esophagitis|oestrogen estrogen
oestrogens estrogens|oestradiol estradiol|diarrhoea diarrhea|dyspnoea dyspnea|apnoea apnea|apnoeas apneas|orthopnoea orthopnea
tachypnoea tachypnea|amenorrhoea amenorrhea|dysmenorrhoea dysmenorrhea|gonorrhoea gonorrhea|rhinorrhoea rhinorrhea
seborrhoea seborrhea|steatorrhoea steatorrhea|coeliac celiac|foetus fetus|foetal fetal|foetuses fetuses|caecum cecum|caecal cecal
faeces feces|faecal fecal|paediatric pediatric|paediatrics pediatrics|paediatrician pediatrician|orthopaedic orthopedic
gynaecology gynecology|gynaecological gynecological|gynaecomastia gynecomastia|anaesthesia anesthesia|anaesthetic anesthetic
anaesthetics anesthetics|paraesthesia paresthesia|hyperaesthesia hyperesthesia|aetiology etiology|aetiological etiological
tumour tumor|tumours tumors|colour color|colours colors|coloured colored|discolouration discoloration|odour odor|behaviour behavior
behaviours behaviors|behavioural behavioral|labour labor|favour favor|favourable favorable|neighbouring neighboring|humour humor
vapour vapor|rigour rigor|fibre fiber|fibres fibers|centre center|centres centers|litre liter|litres liters|titre titer|titres titers
calibre caliber|goitre goiter|sulphate sulfate|sulphur sulfur|sulphonamide sulfonamide|leucocyte leukocyte|leucocytes leukocytes
leucocytosis leukocytosis|manoeuvre maneuver|manoeuvres maneuvers|mould mold|moulds molds|grey gray|ageing aging|enrolment enrollment
tranquilliser tranquilizer|sterilise sterilize|sterilised sterilized|characterised characterized|characterise characterize
recognised recognized|recognise recognize|localised localized|generalised generalized|immunised immunized|hospitalised hospitalized
hospitalisation hospitalization|immunisation immunization|normalise normalize|stabilise stabilize|minimise minimize
metabolise metabolize|metabolised metabolized|catheterisation catheterization|ionising ionizing|organisation organization
organisations organizations|analyse analyze|analysed analyzed|paralyse paralyze|paralysed paralyzed|dialyse dialyze
haemoptysis hemoptysis|haematemesis hematemesis|hypovolaemia hypovolemia|hypoxaemia hypoxemia|ischaemias ischemias
"""
TO_US = dict(pair.split() for line in _PAIRS.strip().splitlines() for pair in line.split("|"))
TO_UK = {us: uk for uk, us in TO_US.items()}
_WORD = re.compile(r"[A-Za-z]+")


def respelled(text: str, table: dict[str, str]) -> str:
    """The text with the words of a table exchanged; capitals as they were, other words as they are."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        respelling = table.get(word.lower())
        if respelling is None or not (word.islower() or word.istitle()):
            return word
        return respelling.capitalize() if word.istitle() else respelling

    return _WORD.sub(other, text)


def normalized(text: str) -> str:
    """The text in US spelling."""
    return respelled(text, TO_US)
