"""The header of a table: whether its columns make records, or in words what is missing, with the line of params.yaml to write.

Of its names a message shows those that are known to be names of columns; others may be values, of a first line that is a record.
"""

import glob
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.corpus.readers.records import FIELDS

MAX_NAME, MAX_NAMES = 40, 30  # characters that a column's name has, and names that a message shows
# Names that columns have in tables of questions and of notes: English, German, French, Spanish, Italian, Polish, Turkish. A name that
# several fields list is the first one's.
_NAMES = {
    "question": "question questions query prompt input frage fragen frage_text pregunta preguntas demande domanda domande pytanie pytania "
    "soru sorular instruction q",
    "answer": "answer answers response reply output completion antwort antworten respuesta respuestas réponse réponses reponse reponses "
    "risposta risposte odpowiedź odpowiedzi odpowiedz cevap cevaplar yanıt yanit a",
    "text": "text note notes note_text notetext report report_text content body narrative document impression findings letter discharge "
    "summary discharge_summary free_text freetext clinical_note befund befundtext bericht brief arztbrief notiz freitext inhalt texte "
    "compte_rendu rapport observation lettre contenu texto nota notas informe contenido testo referto relazione lettera contenuto tekst "
    "notatka opis wynik treść tresc metin rapor not bulgular içerik icerik",
    "group": "group patient patient_id patientid person_id subject_id mrn case case_id patientennummer patienten_id fallnummer fall gruppe "
    "patient_nr pat_id patid paciente id_paciente grupo paziente id_paziente gruppo pacjent pacjent_id id_pacjenta grupa hasta hasta_id "
    "hasta_no grup groupe id_patient",
    "topic": "topic focus subject disease condition diagnosis category thema krankheit erkrankung diagnose tema enfermedad diagnóstico "
    "diagnostico maladie sujet diagnostic malattia argomento diagnosi choroba temat diagnoza rozpoznanie hastalık hastalik konu tanı tani",
    "split": "split subset partition aufteilung",
}
_FIELD_OF = {name: field for field, names in reversed(_NAMES.items()) for name in names.split()}
# Columns that say who a patient is, and who wrote a note, by type of identifier.
_PATIENTS = {
    "NAME": "first last first_name last_name firstname lastname given family given_name family_name surname forename patient_name vorname "
    "nachname familienname nom prénom prenom nombre apellido apellidos cognome imię imie nazwisko soyad soyadı",
    "MRN": "mrn medical_record_number hospital_number patientennummer patienten_id",
    "DATE": "dob birth_date birthdate date_of_birth born geburtsdatum fecha_nacimiento fecha_de_nacimiento date_naissance "
    "date_de_naissance data_di_nascita data_urodzenia doğum_tarihi dogum_tarihi",
    "PHONE": "phone telephone mobile tel telefon teléfono telefono téléphone",
    "EMAIL": "email e_mail",
    "ADDRESS": "address street city town adresse strasse straße wohnort dirección direccion indirizzo adres",
    "ZIP": "zip zip_code postcode postal_code plz",
    "SSN": "ssn social_security_number",
}
_STAFF = {"NAME": "author attending provider signed_by dictated_by physician doctor nurse radiologist pathologist arzt ärztin arzt_name"}
_PEOPLE = {
    name: (who, type_)
    for who, types in (("patient", _PATIENTS), ("staff", _STAFF))
    for type_, names in types.items()
    for name in names.split()
}
# Further names that only a header has, so that a first line with one is no record.
_OTHER = frozenset(
    "id nr no num number index name date time datum zeit fecha data tarih author title type kind status code source url link language "
    "ward department age sex gender comment row_id hadm_id".split()
)
_WEAK = frozenset(
    "a q no not nota fall case summary name date type number text data ward first last family given born phone nurse".split()
)  # which stand in records too
_A_NAME = re.compile(r"[^\W\d][\w .:()/#°-]*")


def has_text(columns: Iterable[str]) -> bool:
    """Whether these fields make a record."""
    fields = {*columns}
    return {"question", "answer"} <= fields or bool({"text", "messages", "conversations"} & fields) or {"instruction", "output"} <= fields


def repeated(names: Sequence[str]) -> str:
    """The fields that are more than once among names: one of their values would be lost."""
    return ", ".join(sorted({name for name in names if name in FIELDS and names.count(name) > 1}))


def missing_columns(names: Sequence[str], name: str, kind: str = "header") -> str:
    """What is wrong with a header that says nothing to us: its names where they are no record's values, and the line to write."""
    missing = f"has a {kind} with no column Question and Answer, and none named text"
    shown = [" ".join(column.split()) for column in names if column.strip()]
    if not _is_header(shown):
        return (
            f"{missing}. Its first line may be a record, so it is not shown: it needs names of columns above the records. "
            f"What they mean, params.yaml says: {yaml_line(name, columns={'question': 'NAME', 'answer': 'NAME'})}"
        )
    known = [column for column in shown if _is_known(column)][:MAX_NAMES]
    listed = ", ".join(known) + (f" and {len(shown) - len(known)} more" if len(shown) > len(known) else "")
    guess, sure = guessed(shown)
    advice = "If it fits, write into params.yaml" if sure else "Write into params.yaml, with its names for ours"
    return f"{missing}. Its columns: {listed}. {advice}: {yaml_line(name, columns=guess, **people(shown))}"


def guessed(names: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Which of our fields the columns may be, by their names, and whether they make a record so."""
    guess: dict[str, str] = {}
    for column in names:
        if field := _FIELD_OF.get(_plain(column)):
            guess.setdefault(field, column)
    order: tuple[str, ...] = ("question", "answer", "group", "topic", "split")
    if not {"question", "answer"} <= {*guess} and "text" in guess:
        order = ("text", "group", "topic", "split")
    fields = {field: guess[field] for field in order if field in guess}
    of_people = {*fields} == {"group"} and "patient" in people(names)  # a table of patients, whose notes are elsewhere
    sure = has_text(fields) or of_people
    if not sure:
        fields = {field: guess.get(field, "NAME") for field in ("question", "answer")} | fields
    return fields, sure


def people(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """The columns that may say who patients and staff are, by their names: options ``patient`` and ``staff``, where there are any."""
    options: dict[str, dict[str, list[str]]] = {}
    for column in names:
        if role := _PEOPLE.get(_plain(column)):
            options.setdefault(role[0], {}).setdefault(role[1], []).append(column)
    return options


def yaml_line(name: str, **options: str | dict[str, Any]) -> str:
    """The line of params.yaml that sets options of a file."""
    settings = ", ".join(f"{option}: {_yaml(value)}" for option, value in options.items())
    return f"preprocess: {{files: {{{json.dumps(glob.escape(name), ensure_ascii=False)}: {{{settings}}}}}}}"


def _yaml(value: str | list[str] | dict[str, Any]) -> str:
    if isinstance(value, list):
        return _yaml(value[0]) if len(value) == 1 else f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(text)}" for key, text in value.items()) + "}"
    plain = re.fullmatch(r"[^\W\d_][\w-]*(?: [\w-]+)*", value) and value.lower() not in ("yes", "no", "true", "false", "null", "on", "off")
    return value if plain else json.dumps(value, ensure_ascii=False)


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _is_known(column: str) -> bool:
    return _plain(column) in _FIELD_OF or _plain(column) in _PEOPLE or _plain(column) in _OTHER


def _is_header(names: Sequence[str]) -> bool:
    """Whether a first line has names of columns and no values: all look like names, and two are known, or one and all are single words."""
    if not names or any(len(name) > 2 * MAX_NAME or len(name.split()) > 6 or not _A_NAME.fullmatch(name) for name in names):
        return False
    known = sum(_plain(name) not in _WEAK and _is_known(name) for name in names)
    return known >= 2 or (known == 1 and not any(" " in name for name in names))
