"""Notes in HL7 v2 messages."""

import base64
from pathlib import Path

import pytest

from tasks.corpus.documents import Document, KnownPerson, Rejected, Skipped
from tasks.corpus.readers import hl7_messages, streams
from tasks.corpus.readers.files import read_file

MSH = r"MSH|^~\&|LAB|HOSP|EHR|HOSP|20260101||ORU^R01|1|P|2.5"


def segment(name: str, **fields: str) -> str:
    """A segment with fields by number, as in ``f3="x"``."""
    numbers = {int(key[1:]): value for key, value in fields.items()}
    return "|".join([name, *(numbers.get(number, "") for number in range(1, max(numbers) + 1))])


NUMBERS = "MRN7^^^HOSP^MR~999-12-3456^^^SSA^SS"
PHONES = "(555)1^PRN^PH~^NET^Internet^a@b.org"
NAMES, ADDRESS = "Smith^Ann^Mary~O'Hara^Ann", "1 Main St^^Lowell^MA^01850"
PID = segment("PID", f2="OLD1", f3=NUMBERS, f5=NAMES, f7="19501219", f11=ADDRESS, f13=PHONES, f18="ACC1^^^HOSP", f20="S99")
PROVIDER = "1234567893^Lee^Kim^J^^^^^NPI"
OBR = segment("OBR", f1="1", f3="F1", f4="RAD^Chest x-ray", f16=PROVIDER, f25="F", f32="55&Kumar&Raj")


def read(directory: Path, content: str | bytes) -> tuple[list[Document], list[tuple[str, str]], list[tuple[str, str]], list[KnownPerson]]:
    """Documents, what is rejected and what is skipped where, and people."""
    (directory / "a.hl7").write_bytes(content.encode() if isinstance(content, str) else content)
    records = list(read_file(directory, "a.hl7"))
    rejected = [(r.position, r.reason.split(" (")[0]) for r in records if isinstance(r, Rejected)]
    skipped = [(r.position, r.reason.split(" (")[0]) for r in records if isinstance(r, Skipped)]
    return [r for r in records if isinstance(r, Document)], rejected, skipped, [r for r in records if isinstance(r, KnownPerson)]


def message(*segments: str, end: str = "\r", header: str = MSH) -> str:
    return end.join([header, PID, *segments]) + end


def obx(text: str, kind: str = "TX", name: str = "RPT^Report", units: str = "", status: str = "F") -> str:
    return f"OBX|1|{kind}|{name}||{text}|{units}|||||{status}"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("framed", [False, True])
def test_texts_of_a_group_are_one_note_whatever_ends_a_segment(tmp_path: Path, end: str, framed: bool) -> None:
    one = message(OBR, obx("Findings:"), obx(""), obx("No effusion."), end=end)
    two = message(OBR, obx("First."), OBR, obx("Second."), end=end)
    text = f"\x0b{one}\x1c\r\x0b{two}\x1c\r" if framed else f"FHS|^~\\&{end}BHS|^~\\&{end}{one}{two}BTS|2{end}FTS|1{end}"
    documents, rejected, skipped, _ = read(tmp_path, text)
    assert [d.answer for d in documents] == ["Findings:\n\nNo effusion.", "First.", "Second."] and not rejected and not skipped
    assert len({d.group for d in documents}) == 1 and "MRN7" not in documents[0].group
    assert documents[0].position == f"line {3 if framed else 5}"


ESCAPES = {
    r"a \F\ b \S\ c \T\ d \R\ e \E\ f": "a | b ^ c & d ~ e \\ f",
    r"one\.br\two\.sp+2\three\.in+4\four": "one\ntwo\n\nthreefour",
    r"caf\XC3A9\ \X0D0A\\H\bold\N\ \.fi\x": "café\nbold x",
    r"caf\XE9\ 5 \ 6": "café 5 \\ 6",
    r"5 ^ 6 & 7~next": "5 ^ 6 & 7\nnext",
}


@pytest.mark.parametrize("source", ESCAPES)
def test_escapes_are_decoded(tmp_path: Path, source: str) -> None:
    (document,), rejected, _, _ = read(tmp_path, message(OBR, obx(source, "FT")))
    assert document.answer.replace(" \n", "\n") == ESCAPES[source] and not rejected


def test_results_are_lines_of_the_note_to_which_they_belong(tmp_path: Path) -> None:
    results = [
        obx("Gross exam.", "FT"),
        obx("7.2", "NM", "HGB^Hemoglobin", "g/dL"),
        obx(">^100", "SN", "X^Titer"),
        obx("POS^Positive", "CWE", "S^Strep"),
        obx("yellow", "ST", "C^Colour"),
        "NTE|1||A comment.",
    ]
    (document,), _, skipped, _ = read(tmp_path, message(OBR, *results) + message(OBR, obx("140", "NM", "NA^Sodium", "mmol/L")))
    assert document.answer == "Gross exam.\nHemoglobin 7.2 g/dL\nTiter >100\nStrep Positive\nColour yellow\nA comment."
    assert skipped == [("line 12", "is a group of results without a text")]


def encapsulated(data: str | bytes, subtype: str, encoding: str = "Base64") -> str:
    code = base64.b64encode(data.encode() if isinstance(data, str) else data).decode() if encoding == "Base64" else str(data)
    return obx(f"SYS^TEXT^{subtype}^{encoding}^{code}", "ED")


def test_encapsulated_data_is_read_as_attachments_are(tmp_path: Path) -> None:
    txa = segment("TXA", f1="1", f2="DS", f3="TX", f5="77^Okafor^Ben", f12="DOC1", f17="AU", f19="AV")
    mdm = MSH.replace("ORU^R01", "MDM^T02")
    sources = [
        encapsulated("Coughs.", "PLAIN"),
        encapsulated(rb"{\rtf1\ansi Fever\par Rash}", "RTF"),
        encapsulated("<p>Fever</p><p>Rash</p>", "HTML"),
        encapsulated(r"Plain \T\ simple.", "Octet-stream", "A"),
        encapsulated(b"%PDF-1.4", "PDF"),
        encapsulated(base64.b64encode(b"The patient coughs at night.").decode(), "PLAIN"),
        obx("http://x.org/1^A", "RP"),
    ]
    documents, rejected, _, people = read(tmp_path, "".join(message(txa, source, header=mdm) for source in sources))
    assert [d.answer for d in documents] == ["Coughs.", "Fever\nRash", "Fever\n\nRash", "Plain & simple."]
    assert rejected == [
        ("line 20", "holds a note that is neither text, HTML, RTF nor a clinical document"),
        ("line 24", "holds a note that is encoded twice in base64"),
        ("line 28", "holds a note only by reference, which is not followed"),
    ]
    assert KnownPerson("", (("OTHER", "77"), ("NAME", "Ben Okafor"))) in people
    documents, rejected, skipped, _ = read(tmp_path, message(txa, obx("As text."), encapsulated(b"%PDF-1.4", "PDF"), header=mdm))
    assert [d.answer for d in documents] == ["As text."] and not rejected and skipped[0][0] == "line 5"


def test_withdrawn_results_and_documents_are_skipped(tmp_path: Path) -> None:
    cancelled = OBR.replace("|F|", "|X|")
    obsolete, wrong = segment("TXA", f12="DOC1", f17="AU", f19="OB"), segment("TXA", f12="DOC1", f17="CA")
    text = message(OBR, obx("Kept."), obx("Deleted.", status="D"), obx("Wrong.", status="W")) + message(cancelled, obx("Cancelled."))
    text += message(obsolete, obx("Old.")) + message(wrong, obx("x")) + message(header=MSH.replace("ORU^R01", "MDM^T11")) + message()
    documents, rejected, skipped, _ = read(tmp_path, text)
    assert [d.answer for d in documents] == ["Kept."] and not rejected
    assert [reason for _, reason in skipped] == [
        "is a result with the status D",
        "is a result with the status W",
        "has the status X",
        "has the status OB",
        "has the status CA",
        "cancels a document",
        "is a message without results or a document",
    ]


def test_a_message_names_people(tmp_path: Path) -> None:
    kin = "NK1|1|Smith^Bob|SPO|2 Elm St^^Salem^MA^01970|(555)2"
    visit = "PV1|1|I|3E^12^A^MERCY||||77^Okafor^Ben||||||||||||V5"
    (document,), _, _, people = read(tmp_path, message(kin, visit, OBR, obx("x")))
    patient, relative, *others = people
    assert patient.group == relative.group == document.group
    assert set(patient.identifiers) == {
        *(("NAME", name) for name in ("Ann Mary Smith", "Ann O'Hara")),
        *(("MRN", value) for value in ("OLD1", "MRN7")),
        *(("ADDRESS", part) for part in ("1 Main St", "Lowell")),
        ("DATE", "1950-12-19"),
        ("SSN", "999-12-3456"),
        ("ZIP", "01850"),
        ("PHONE", "(555)1"),
        ("EMAIL", "a@b.org"),
        ("ACCOUNT", "ACC1"),
        ("LICENSE", "S99"),
    }
    assert relative.identifiers == (
        ("NAME", "Bob Smith"),
        ("ADDRESS", "2 Elm St"),
        ("ADDRESS", "Salem"),
        ("ZIP", "01970"),
        ("PHONE", "(555)2"),
    )
    assert others == [
        KnownPerson(document.group, (("OTHER", "V5"),)),
        KnownPerson("", (("FACILITY", "MERCY"),)),
        KnownPerson("", (("OTHER", "77"), ("NAME", "Ben Okafor"))),
        KnownPerson("", (("NPI", "1234567893"), ("NAME", "Kim J Lee"))),
        KnownPerson("", (("OTHER", "55"), ("NAME", "Raj Kumar"))),
    ]


def test_bad_messages_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    good = message(OBR, obx("Kept."))
    bad = [
        "MSH|AB~\\&|LAB\rOBX|1|TX|||x\r",
        "MSH|^^^^|LAB\rOBX|1|TX|||x\r",
        MSH + "\rPID;1;;x\rOBX;1;TX;;;x\r",
        "MSH\rOBX|1|TX|||x\r",
    ]
    documents, rejected, skipped, _ = read(tmp_path, good.join(["", *bad, ""]))
    assert [d.answer for d in documents] == ["Kept."] * 5 and not skipped
    separators = "has separators that are none"
    assert [reason for _, reason in rejected] == [separators, separators, "has segments with another separator than MSH-1", separators]
    assert [position for position, _ in rejected] == ["line 5", "line 11", "line 17", "line 24"]


def test_a_segment_before_any_header_is_named(tmp_path: Path) -> None:
    documents, rejected, _, _ = read(tmp_path, "PID|1||x\rOBX|1|TX|||lost\r" + message(OBR, obx("Kept.")))
    assert [d.answer for d in documents] == ["Kept."] and rejected == [("line 1", "is not in a message: no MSH segment is before it")]
    assert read(tmp_path, "no message at all\n")[1] == rejected


def test_other_separators_encodings_and_line_ends_within_a_text_are_read(tmp_path: Path) -> None:
    other = "MSH#*!?%#LAB\rPID#1##MRN7*2***MR\rOBR#1\rOBX#1#TX#RPT*Report##one ?S? two!three\r"
    (document,), rejected, _, _ = read(tmp_path, other)
    assert document.answer == "one * two\nthree" and not rejected
    (document,), _, _, _ = read(tmp_path, message(OBR, "OBX|1|TX|RPT||first line\nsecond, smith\n\nthird|||||F"))
    assert document.answer == "first line\nsecond, smith\nthird"
    latin = message(OBR, obx("Müde."), header=MSH + "||||||8859/1").encode("latin-1")
    assert [d.answer for d in read(tmp_path, latin)[0]] == ["Müde."]
    _, rejected, _, _ = read(tmp_path, message(OBR, obx("Müde.")).encode("latin-1"))
    assert rejected == [("line 1", "holds bytes that are not in the file's encoding")]


@pytest.mark.parametrize(
    "line", ["HPI", "PMH", "EKG", "CBC", "DRG", "PID", "PID in 2019", "OBR: none", "MSH2 and MSH6 intact", "MSH-2 lost"]
)
def test_a_line_of_a_text_is_no_segment(tmp_path: Path, line: str) -> None:
    (document,), rejected, _, _ = read(tmp_path, message(OBR, f"OBX|1|TX|RPT||first\n{line}\nlast|||||F", end="\n"))
    assert document.answer == f"first\n{line}\nlast" and not rejected
    documents, _, _, _ = read(tmp_path, message("PV1", OBR, obx("One."), "NTE", obx("Two.")))
    assert [d.answer for d in documents] == ["One.\n\nTwo."]


def test_base64_in_lines_is_read(tmp_path: Path) -> None:
    code = base64.encodebytes(b"The patient coughs at night. " * 2000).decode().strip()
    for lines in (code, code.replace("\n", "\\.br\\")):
        (document,), rejected, _, _ = read(tmp_path, message(OBR, obx(f"SYS^TEXT^PLAIN^Base64^{lines}", "ED"), end="\n"))
        assert document.answer.startswith("The patient coughs at night. The") and not rejected


def test_each_patient_of_a_message_has_its_notes_and_people(tmp_path: Path) -> None:
    other = PID.replace("MRN7", "MRN8").replace("Smith", "Jones")
    documents, _, _, people = read(tmp_path, message(OBR, obx("One."), other, OBR, obx("Two."), obx("Three.", name="X^Y")))
    assert [d.answer for d in documents] == ["One.", "Two.\nThree."] and documents[0].group != documents[1].group
    names = {
        group: {v for p in people if p.group == group for t, v in p.identifiers if t == "NAME"} for group in (d.group for d in documents)
    }
    assert [("Ann Mary Smith" in known, "Ann Mary Jones" in known) for known in names.values()] == [(True, False), (False, True)]


def test_a_clinical_document_within_a_message_names_people(tmp_path: Path) -> None:
    patient = (
        "<recordTarget><patientRole><patient><name><given>Zoe</given><family>Quill</family></name></patient></patientRole></recordTarget>"
    )
    body = "<component><structuredBody><component><section><text>Coughs.</text></section></component></structuredBody></component>"
    xml = f'<ClinicalDocument xmlns="urn:hl7-org:v3">{patient}{body}</ClinicalDocument>'
    (document,), rejected, _, people = read(tmp_path, message(OBR, encapsulated(xml, "XML")))
    assert document.answer == "Coughs." and not rejected
    assert [p.group for p in people if ("NAME", "Zoe Quill") in p.identifiers] == [document.group]


def test_patients_are_one_by_authority_and_number(tmp_path: Path) -> None:
    numbers = ["7^^^A^MR", "9^^^X^SS~7^^^A^MR", "7^^^B^MR", ""]
    text = "".join(f"{MSH}\rPID|1||{number}\r{OBR}\r{obx('x')}\r" for number in numbers)
    groups = [d.group for d in read(tmp_path, text)[0]]
    assert groups[0] == groups[1] != groups[2] and groups[3].startswith("record:")


def test_a_message_of_any_length_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hl7_messages, "MAX_RECORD", 2000)
    monkeypatch.setattr(streams, "MAX_RECORD", 1500)
    long = [message(OBR, *[obx("x" * 100)] * 50), message(OBR, obx("y" * 5000))]
    documents, rejected, _, _ = read(tmp_path, "".join([message(OBR, obx("One.")), *long, message(OBR, obx("Two."))]))
    assert [d.answer for d in documents] == ["One.", "Two."] and [reason.split(" of")[0] for _, reason in rejected] == ["is a record"] * 2
