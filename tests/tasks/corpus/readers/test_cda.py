"""Clinical documents: the narrative of their sections, and the people of their header."""

import base64
from pathlib import Path

import pytest

from tasks.corpus.documents import Document, KnownPerson, Rejected
from tasks.corpus.readers.files import read_file

HEADER = """<title>Discharge  Summary</title>
<recordTarget><patientRole><id root="1.2.3" extension="MRN7"/><id root="2.16.840.1.113883.4.1" extension="999-12-3456"/>
<addr><streetAddressLine>1 Main St</streetAddressLine><city>Lowell</city><state>MA</state><postalCode>01850</postalCode>
<country>US</country></addr>
<telecom value="tel:+1-555-1"/><telecom value="mailto:a@b.org"/>
<patient><name><given>Ann</given><given>Mary</given><family>Smith</family></name><birthTime value="19501219"/>
<guardian><addr><city>Salem</city></addr><guardianPerson><name>Bob
Smith</name></guardianPerson></guardian></patient>
<providerOrganization><id root="9"/><name>Mercy</name><telecom value="tel:555-9"/></providerOrganization></patientRole></recordTarget>
<author><time value="2026"/><assignedAuthor><id root="2.16.840.1.113883.4.6" extension="1234567893"/>
<assignedPerson><name><prefix>Dr.</prefix><given>Kim</given><family>Lee</family></name></assignedPerson>
<representedOrganization><name>Mercy West</name></representedOrganization></assignedAuthor></author>
<informant><relatedEntity><relatedPerson><name>Sue Smith</name></relatedPerson></relatedEntity></informant>
<custodian><assignedCustodian><representedCustodianOrganization><name>Mercy Trust</name></representedCustodianOrganization>
</assignedCustodian></custodian>
<participant><associatedEntity><telecom value="fax:555-4"/>
<associatedPerson><name>Tom Smith</name></associatedPerson></associatedEntity></participant>
<componentOf><encompassingEncounter><id root="5" extension="V5"/><location><healthCareFacility><location><name>East Wing Clinic</name>
</location></healthCareFacility></location></encompassingEncounter></componentOf>"""
SECTIONS = """<component><section><title>Results</title><text><table><thead><tr><th>Test</th><th>Value</th><th>Flag</th></tr></thead>
<tbody><tr><td><content ID="a">Sodium</content></td><td>140</td><td/></tr><tr><td>K</td><td>4.1</td><td>H</td></tr></tbody></table></text>
<component><section><title>Imaging</title><text><paragraph>No <content styleCode="Bold">finding</content>.</paragraph>
<renderMultiMedia referencedObject="x"><caption>Fig</caption></renderMultiMedia></text></section></component></section></component>
<component><section><code displayName="Plan of care"/><text><list><caption>To do</caption><item>Rest<br/>in bed</item><item>10<sup>9</sup>
</item></list><list listType="ordered"><item>one</item><item>two</item></list>
<content revised="delete">gone</content></text></section></component>
<component><section><title>Empty</title><text/></section></component>"""
TEXT = """Discharge Summary

Results
Test | Value | Flag
Sodium | 140 |
K | 4.1 | H

Imaging
No finding.

Plan of care
To do
- Rest
  in bed
- 10^9
1. one
2. two"""


def document(header: str = HEADER, body: str = f"<component><structuredBody>{SECTIONS}</structuredBody></component>") -> str:
    return f'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><id root="1"/>{header}{body}</ClinicalDocument>'


def read(directory: Path, text: str, name: str = "a.xml") -> tuple[list[Document], list[str], list[KnownPerson]]:
    (directory / name).write_text(text)
    records = list(read_file(directory, name))
    documents = [r for r in records if isinstance(r, Document)]
    return documents, [r.reason for r in records if isinstance(r, Rejected)], [r for r in records if isinstance(r, KnownPerson)]


@pytest.mark.parametrize("name", ["a.xml", "a.ccda", "a.CDA"])
def test_the_narrative_of_the_sections_is_one_text(tmp_path: Path, name: str) -> None:
    (record,), rejected, _ = read(tmp_path, document(), name)
    assert record.answer == TEXT and record.question == "" and record.category == "cda-note" and not rejected


def test_documents_of_a_patient_are_one_group(tmp_path: Path) -> None:
    (one,), _, _ = read(tmp_path, document(), "a.xml")
    (two,), _, _ = read(tmp_path, document(body="<component><nonXMLBody><text>Coughs.</text></nonXMLBody></component>"), "b.xml")
    (other,), _, _ = read(tmp_path, document(HEADER.replace("MRN7", "MRN8")), "c.xml")
    (nobody,), _, _ = read(tmp_path, document(""), "d.xml")
    assert one.group == two.group != other.group and nobody.group.startswith("record:") and "MRN7" not in one.group


def test_an_id_that_many_patients_have_names_none(tmp_path: Path) -> None:
    social, uuid = "2.16.840.1.113883.4.1", "5ec5bf26-6a05-4bd4-9c5b-0a5b2f4e8a11"
    ids = [f'<id root="{social}" nullFlavor="UNK"/><id root="1.2.3" extension="{n}"/>' for n in (111, 222)]
    ids += [f'<id root="{uuid}"/>', f'<id root="{uuid}" nullFlavor="UNK"/>', f'<id root="{social}"/>']
    old = '<id root="1.2.3" extension="MRN7"/><id root="2.16.840.1.113883.4.1" extension="999-12-3456"/>'
    groups = [read(tmp_path, document(HEADER.replace(old, new)))[0][0].group for new in ids]
    assert len({*groups[:3]}) == 3 and not any(group.startswith("record:") for group in groups[:3])
    assert all(group.startswith("record:") for group in groups[3:])


def test_the_header_names_people(tmp_path: Path) -> None:
    (record,), _, people = read(tmp_path, document())
    of_patient = [("MRN", "MRN7"), ("SSN", "999-12-3456"), ("ADDRESS", "1 Main St"), ("ADDRESS", "Lowell"), ("ZIP", "01850")]
    of_patient += [("PHONE", "+1-555-1"), ("EMAIL", "a@b.org"), ("NAME", "Ann Mary Smith"), ("DATE", "1950-12-19")]
    of_patient += [("ADDRESS", "Salem"), ("NAME", "Bob Smith")]
    assert people == [
        KnownPerson("", (("FACILITY", "Mercy"), ("PHONE", "555-9"))),
        KnownPerson(record.group, tuple(of_patient)),
        KnownPerson("", (("NPI", "1234567893"), ("NAME", "Kim Lee"), ("FACILITY", "Mercy West"))),
        KnownPerson(record.group, (("NAME", "Sue Smith"),)),
        KnownPerson("", (("FACILITY", "Mercy Trust"),)),
        KnownPerson(record.group, (("FAX", "555-4"), ("NAME", "Tom Smith"))),
        KnownPerson(record.group, (("OTHER", "V5"),)),
        KnownPerson("", (("OTHER", "V5"), ("FACILITY", "East Wing Clinic"))),
    ]


RTF = base64.b64encode(rb"{\rtf1\ansi Fever\par Rash}").decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<text>Coughs.</text>", "Coughs."),
        (f'<text mediaType="application/rtf" representation="B64">{RTF}</text>', "Fever\nRash"),
        ('<text mediaType="application/pdf" representation="B64">AAAA</text>', "holds a note that is neither text"),
        ('<text mediaType="text/plain"><reference value="a.txt"/></text>', "is a clinical document whose text is in another file"),
        ("<text/>", "is a clinical document without a text"),
        ('<text mediaType="text/plain" representation="B64">*</text>', "holds a note that is not base64"),
    ],
)
def test_a_body_that_is_no_xml_is_read_by_its_type(tmp_path: Path, text: str, expected: str) -> None:
    documents, rejected, people = read(tmp_path, document(body=f"<component><nonXMLBody>{text}</nonXMLBody></component>"))
    if expected[0].isupper():
        assert documents[0].answer == f"Discharge Summary\n\n{expected}" and people
    else:
        assert not documents and rejected[0].startswith(expected)


def test_a_document_that_is_made_to_harm_is_refused(tmp_path: Path) -> None:
    deep = "<component><section><text>x</text>" * 120 + "</section></component>" * 120
    body = f"<component><structuredBody>{deep}</structuredBody></component>"
    assert read(tmp_path, document(body=body))[1] == ["is a clinical document with sections more than 100 levels deep"]
    markup = "<content>" * 300 + "x" + "</content>" * 300
    section = f"<component><structuredBody><component><section><text>{markup}</text></section></component></structuredBody></component>"
    assert read(tmp_path, document("", section))[0][0].answer == "x"
    entities = '<!DOCTYPE a [<!ENTITY b "bbbb">]>' + document().split("?>")[1]
    assert read(tmp_path, entities)[1][0].startswith("defines entities")
    assert read(tmp_path, document().replace("</ClinicalDocument>", ""))[1][0].startswith("is not well-formed XML in line")
