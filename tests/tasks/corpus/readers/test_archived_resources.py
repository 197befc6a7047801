"""Hospital formats within an archive."""

import json
import zipfile
from pathlib import Path

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers.files import read_file, record_files


def test_single_notes_in_an_archive_are_read_and_resources_that_refer_to_each_other_are_refused(tmp_path: Path) -> None:
    resource = {"resourceType": "DocumentReference", "content": [{"attachment": {"contentType": "text/plain", "data": "U2Vlbi4="}}]}
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("a.html", "<p>Seen.</p>")
        archive.writestr("b.rtf", r"{\rtf1\ansi Well.}")
        archive.writestr("c.ndjson", json.dumps(resource))
    records = [record for name in record_files(tmp_path) for record in read_file(tmp_path, name)]
    assert [record.answer for record in records if isinstance(record, Document)] == ["Seen.", "Well."]
    assert [(record.source, record.reason) for record in records if isinstance(record, Rejected)] == [
        ("export.zip/c.ndjson", "holds FHIR resources within an archive; unpack it, as they refer to each other")
    ]
