"""What a newcomer brings: notes as text files, questions from Excel, conversations, a small FHIR export. All of it is made up."""

import base64
import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

from helpers.hospital import Json

NOTES, QUESTIONS, CHATS, FHIR_NOTES = 30, 200, 40, 20
_GIVEN = "Elena Marcus Priya Thomas Ingrid Samuel Noor Patrick Yuki Beatrice Omar Louisa".split()
_FAMILY = "Halvorsen Okonkwo Whitcombe Delacroix Brannigan Szymanski Castellano Raghunathan Lindqvist Abernathy Kowalczyk Treadwell".split()
_STAFF = [("Miriam", "Stephanopoulos"), ("Declan", "Fairweather"), ("Anjali", "Venkataraman")]


@dataclass(frozen=True)
class _Case:
    """A problem, what a patient says of it, what is seen, and what is done about it."""

    problem: str
    complaint: str
    finding: str
    treatment: str


_CASES = (
    _Case(
        "Community acquired pneumonia", "a productive cough and fever", "crackles at the right base", "amoxicillin 1 g three times a day"
    ),
    _Case("Atrial fibrillation", "palpitations after meals", "an irregular pulse without murmurs", "apixaban 5 mg twice a day"),
    _Case("Gout", "a swollen and very painful left big toe", "redness over the first metatarsal joint", "colchicine 0.5 mg twice a day"),
    _Case("Iron deficiency anaemia", "tiredness and breathlessness on stairs", "pale conjunctivae", "ferrous sulfate 200 mg once a day"),
    _Case("Migraine without aura", "throbbing headaches with nausea", "a normal neurological examination", "sumatriptan 50 mg when needed"),
    _Case("Type 2 diabetes", "thirst and blurred vision", "reduced vibration sense in both feet", "metformin 500 mg twice a day"),
    _Case(
        "Heart failure", "swollen ankles and orthopnoea", "raised jugular pressure and basal crackles", "furosemide 40 mg in the morning"
    ),
    _Case("Asthma", "wheezing at night", "a prolonged expiration with scattered wheeze", "budesonide 200 mcg twice a day"),
    _Case("Cellulitis of the leg", "a hot, tender right calf", "spreading erythema of 12 cm", "flucloxacillin 1 g four times a day"),
    _Case("Hypothyroidism", "weight gain and cold intolerance", "dry skin and slow reflexes", "levothyroxine 50 mcg once a day"),
    _Case("Renal colic", "colicky pain in the left flank", "tenderness over the left kidney", "diclofenac 75 mg and fluids"),
    _Case("Polymyalgia rheumatica", "stiff shoulders each morning", "limited abduction of both arms", "prednisolone 15 mg once a day"),
)
_COURSES = (
    "The symptoms began {days} days ago and have become worse since.",
    "There has been some relief since the last visit {days} days ago.",
    "All of it has settled within {days} days, and the patient feels well.",
)


def write_notes(folder: Path) -> None:
    """30 notes of 12 patients, a text file each: ``case-01-1.txt``."""
    folder.mkdir(parents=True)
    for number in range(NOTES):
        patient, visit = number % len(_CASES), number // len(_CASES)
        (folder / f"case-{patient + 1:02}-{visit + 1}.txt").write_text(_note(patient, visit), encoding="utf-8")


def _note(patient: int, visit: int) -> str:
    case, rng = _CASES[patient], random.Random(f"{patient} {visit}")
    given, family = _STAFF[patient % len(_STAFF)]
    return (
        f"Patient: {_FAMILY[patient]}, {_GIVEN[patient]}    MRN: {4_410_200 + 37 * patient}    Date: {3 + visit}/{patient + 10}/2024\n\n"
        f"HISTORY\n{_GIVEN[patient]} {_FAMILY[patient]} is {34 + 4 * patient} years old and came with {case.complaint}. "
        f"{_COURSES[visit].format(days=rng.randrange(2, 20))}\n\n"
        f"EXAMINATION\nBP {rng.randrange(104, 158)}/{rng.randrange(58, 94)} mmHg, HR {rng.randrange(58, 110)} bpm, "
        f"T {rng.randrange(362, 391) / 10} C, SpO2 {rng.randrange(91, 100)} %. There was {case.finding}.\n\n"
        f"LABORATORY\n  Sodium      {rng.randrange(132, 146)} mmol/L\n  Potassium   {rng.randrange(34, 52) / 10} mmol/L\n"
        f"  Creatinine  {rng.randrange(52, 140)} umol/L\n\n"
        f"PLAN\n{case.problem}: {('start', 'continue', 'stop')[visit]} {case.treatment}. Review in {rng.randrange(2, 9)} weeks.\n\n"
        f"Dr. {given} {family}\n"
    )


# Disease: signs; causes; treatment; examinations.
_DISEASES = """
Asthma: Atemnot und pfeifender Atem; Pollen und kalte Luft; Sprays mit Kortison; eine Lungenfunktion
Bluthochdruck: Kopfschmerzen und Schwindel, oft gar nichts; Übergewicht und viel Salz; Bewegung und ACE-Hemmer; Messungen an mehreren Tagen
Gicht: ein geröteter, sehr schmerzhafter großer Zeh; zu viel Harnsäure; Colchicin und später Allopurinol; eine Punktion des Gelenks
Migräne: pochende Schmerzen einer Kopfhälfte; Stress und Schlafmangel; Triptane und ein dunkler Raum; ein Kopfschmerztagebuch
Neurodermitis: trockene, juckende Haut in den Ellenbeugen; eine Veranlagung und reizende Seifen; fettende Cremes; der Blick auf die Haut
Zöliakie: Durchfall und Blähungen; Gluten im Getreide; eine Ernährung ohne Weizen, Roggen und Gerste; Antikörper und eine Gewebeprobe
Schuppenflechte: silbrig schuppende Herde an Knien und Ellenbogen; eine Veranlagung und Infekte; Salben und UV-Licht; eine Hautprobe
Lungenentzündung: Fieber, Husten und Schüttelfrost; Bakterien wie Pneumokokken; Amoxicillin über fünf Tage; eine Röntgenaufnahme
Eisenmangel: Müdigkeit und brüchige Nägel; starke Regelblutungen; Eisentabletten über drei Monate; Ferritin im Blut
Schilddrüsenunterfunktion: Frieren, Müdigkeit und Gewichtszunahme; eine Entzündung der Schilddrüse; Levothyroxin am Morgen; TSH im Blut
Nierensteine: kolikartige Schmerzen in der Flanke; zu wenig Flüssigkeit; Schmerzmittel und viel Trinken; ein Ultraschall der Nieren
Gürtelrose: brennende Schmerzen und Bläschen auf einer Seite; das Virus der Windpocken; rasch Aciclovir; der Blick auf die Haut
Osteoporose: Brüche schon bei leichten Stürzen; Kortison und wenig Bewegung; Vitamin D und Bisphosphonate; eine Messung der Knochendichte
Rückenschmerzen: Schmerzen im Kreuz, die ins Bein ziehen; langes Sitzen; Bewegung und Ibuprofen; eine körperliche Untersuchung
Blasenentzündung: Brennen beim Wasserlassen; Bakterien aus dem Darm; Fosfomycin und viel Trinken; ein Teststreifen für den Urin
Mandelentzündung: Halsschmerzen und Schluckbeschwerden; Viren oder Streptokokken; Penicillin über sieben Tage; ein Abstrich aus dem Rachen
Heuschnupfen: Niesen und tränende Augen; Pollen von Gräsern und Birken; Antihistaminika oder eine Hyposensibilisierung; ein Pricktest
Vorhofflimmern: Herzstolpern und nachlassende Kraft; Bluthochdruck und Alkohol; Blutverdünner und Betablocker; ein EKG über 24 Stunden
Gallensteine: Krämpfe im Oberbauch nach fettem Essen; Übergewicht und rasches Abnehmen; das Entfernen der Gallenblase; ein Ultraschall
Thrombose: ein geschwollenes, warmes Bein; langes Liegen nach Operationen; Blutverdünner über Monate; D-Dimere und ein Ultraschall der Venen
Arthrose: Schmerzen beim Anlaufen und steife Gelenke; Übergewicht und alte Verletzungen; Krankengymnastik; eine Röntgenaufnahme
Magengeschwür: Schmerzen im Oberbauch, oft nachts; Helicobacter und Schmerzmittel; Säureblocker mit zwei Antibiotika; eine Magenspiegelung
Depression: gedrückte Stimmung und Schlafstörungen; Verluste und eine Veranlagung; Psychotherapie und Sertralin; ein ausführliches Gespräch
Schlafapnoe: Schnarchen und Müdigkeit am Tag; Übergewicht und enge Atemwege; eine Maske mit Überdruck; eine Nacht im Schlaflabor
Glaukom: lange gar keine, dann Ausfälle im Gesichtsfeld; erhöhter Druck im Auge; drucksenkende Tropfen; eine Messung des Augendrucks
""".strip().splitlines()
_ASPECTS = (
    ("Woran erkennt man {name}?", "Typisch für {name}: {signs}. Klarheit bringt {examination}."),
    (
        "Wie wird {name} behandelt?",
        "Am Anfang der Behandlung von {name} steht meist: {treatment}. Tritt keine Besserung ein, ist ein Facharzt nötig.",
    ),
    ("Wie entsteht {name}?", "Zur Entstehung von {name} tragen bei: {causes}. Nicht immer findet man den Auslöser."),
    (
        "Wann sollte man wegen {name} zum Arzt?",
        "Spätestens nach einer Woche mit diesen Beschwerden: {signs}. Bei {name} zählt eine frühe Behandlung.",
    ),
    ("Wie stellt man {name} fest?", "Zuerst wird nach den Beschwerden gefragt. Dann folgt bei Verdacht auf {name}: {examination}."),
    ("Was kann man bei {name} selbst tun?", "Meiden Sie, was {name} auslöst ({causes}), und bleiben Sie bei der Behandlung: {treatment}."),
    (
        "Kann {name} wiederkommen?",
        "Ja, {name} kann wiederkommen, solange die Ursache besteht ({causes}). Kehren die Zeichen zurück, hilft erneut: {treatment}.",
    ),
    ("Welche Untersuchung braucht man bei {name}?", "Bei {name} genügt meist {examination}, wenn die Zeichen passen ({signs})."),
)


def write_questions(path: Path) -> None:
    """200 questions in German on 25 diseases, as Excel saves them: cp1252, semicolons, columns Nr, Frage, Antwort, Krankheit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["Nr;Frage;Antwort;Krankheit"]
    for disease in _DISEASES:
        name, _, facts = disease.partition(": ")
        words = {"name": name} | dict(zip(("signs", "causes", "treatment", "examination"), facts.split("; "), strict=True))
        lines += [f"{len(lines) + i};{q.format(**words)};{a.format(**words)};{name}" for i, (q, a) in enumerate(_ASPECTS)]
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode("cp1252"))


def write_chats(path: Path) -> None:
    """40 conversations with two questions each, one a line; the last question is nearly always the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(CHATS):
        rng, case, other = random.Random(number), _CASES[number % len(_CASES)], _CASES[(number * 5 + 1) % len(_CASES)]
        days, weeks = rng.randrange(2, 30), rng.randrange(2, 9)
        turns = [
            f"For {days} days I have had {case.complaint}. Before that it was {other.complaint}. What could it be?",
            f"That can be {case.problem.lower()}; less often it is {other.problem.lower()}. Has anybody found {case.finding}?",
            "What should I do now?" if number % 8 else "Can I still go to work?",
            f"Please see your doctor within {weeks} weeks. The usual treatment is {case.treatment}, and rest for {days + 1} days.",
        ]
        lines.append(json.dumps({"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_fhir(path: Path) -> None:
    """20 notes of 8 patients as FHIR resources, one a line, in text and HTML; with the patients and the staff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    resources = [
        {"resourceType": "Practitioner", "id": f"d{n}", "name": [{"family": family, "given": [given], "prefix": ["Dr."]}]}
        for n, (given, family) in enumerate(_STAFF)
    ]
    for patient in range(8):
        name = {"family": _FAMILY[-patient - 1], "given": [_GIVEN[-patient - 1]]}
        identifier = {"system": "urn:example:mrn", "value": f"88-{1203 + 71 * patient}"}
        resources.append(
            {
                "resourceType": "Patient",
                "id": f"p{patient}",
                "name": [name],
                "identifier": [identifier],
                "birthDate": f"19{50 + patient}-03-17",
            }
        )
    resources += [_fhir_note(number) for number in range(FHIR_NOTES)]
    path.write_text("".join(json.dumps(resource) + "\n" for resource in resources), encoding="utf-8")


def _fhir_note(number: int) -> Json:
    patient, visit = number % 8, number // 8
    case, rng = _CASES[(patient + 3) % len(_CASES)], random.Random(f"fhir {number}")
    name, (_, doctor) = f"{_GIVEN[-patient - 1]} {_FAMILY[-patient - 1]}", _STAFF[number % len(_STAFF)]
    said = f"{name}, born 03/17/19{50 + patient}, reports {case.complaint}. {_COURSES[visit].format(days=rng.randrange(2, 20))}"
    values = {
        "Pulse": f"{rng.randrange(58, 110)} /min",
        "Weight": f"{rng.randrange(52, 110)} kg",
        "Glucose": f"{rng.randrange(70, 180)} mg/dL",
    }
    plan = f"{case.problem}. We {('started', 'continued', 'stopped')[visit]} {case.treatment}. There was {case.finding}. Dr. {doctor}"
    if number % 2:
        rows = "".join(f"<tr><td>{label}</td><td>{value}</td></tr>" for label, value in values.items())
        kind, text = "text/html", f"<h1>Visit</h1><p>{said}</p><table>{rows}</table><h2>Assessment</h2><p>{plan}</p>"
    else:
        lines = "".join(f"{label}: {value}\n" for label, value in values.items())
        kind, text = "text/plain", f"VISIT\n{said}\n\n{lines}\nASSESSMENT\n{plan}\n"
    attachment = {"contentType": kind, "data": base64.b64encode(text.encode()).decode()}
    note = {"resourceType": "DocumentReference", "id": f"n{number}", "status": "current", "content": [{"attachment": attachment}]}
    return note | {"subject": {"reference": f"Patient/p{patient}"}, "author": [{"reference": f"Practitioner/d{number % len(_STAFF)}"}]}


def write_note_table(path: Path) -> None:
    """The 30 notes as a hospital's database writes them: a table with the patient's number and name in columns of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["PatientID", "First", "Last", "DOB", "Note"])
        for number in range(NOTES):
            patient, visit = number % len(_CASES), number // len(_CASES)
            born = f"19{40 + patient}-0{1 + patient % 9}-1{patient % 9}"
            rows.writerow([4_410_200 + 37 * patient, _GIVEN[patient], _FAMILY[patient], born, _note(patient, visit)])


def write_clinical_documents(folder: Path) -> None:
    """24 clinical documents of 12 patients, a file each: a summary with sections, a table and a list."""
    folder.mkdir(parents=True)
    for number in range(2 * len(_CASES)):
        (folder / f"summary-{number + 1:02}.xml").write_text(_clinical_document(number), encoding="utf-8")


def _clinical_document(number: int) -> str:
    patient, visit = number % len(_CASES), number // len(_CASES)
    case, rng, (given, family) = _CASES[patient], random.Random(f"cda {number}"), _STAFF[number % len(_STAFF)]
    results = {
        "Sodium": f"{rng.randrange(132, 146)} mmol/L",
        "Haemoglobin": f"{rng.randrange(96, 160)} g/L",
        "CRP": f"{rng.randrange(2, 90)} mg/L",
    }
    rows = "".join(f"<tr><td>{test}</td><td>{value}</td></tr>" for test, value in results.items())
    story = f"{_GIVEN[patient]} {_FAMILY[patient]} came with {case.complaint}. {_COURSES[visit].format(days=rng.randrange(2, 20))}"
    plan = (f"{('start', 'continue')[visit]} {case.treatment}", f"Review by Dr. {family} in {rng.randrange(2, 9)} weeks")
    sections = {
        "History": f"<paragraph>{story}</paragraph>",
        "Results": f"<table><thead><tr><th>Test</th><th>Value</th></tr></thead><tbody>{rows}</tbody></table>",
        "Plan": f"<list>{''.join(f'<item>{item}</item>' for item in plan)}</list>",
    }
    body = "".join(
        f"<component><section><title>{title}</title><text>{text}</text></section></component>" for title, text in sections.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ClinicalDocument xmlns="urn:hl7-org:v3"><title>Summary of care</title>'
        f'<recordTarget><patientRole><id root="1.2.3" extension="{7300 + patient}"/><patient><name><given>{_GIVEN[patient]}</given>'
        f'<family>{_FAMILY[patient]}</family></name><birthTime value="19{40 + patient}0412"/></patient></patientRole></recordTarget>'
        f"<author><assignedAuthor><assignedPerson><name><given>{given}</given><family>{family}</family></name></assignedPerson>"
        f"</assignedAuthor></author><component><structuredBody>{body}</structuredBody></component></ClinicalDocument>\n"
    )
