"""The files of the regulator's folder."""

import json
from pathlib import Path

from tasks.registry.compliance.chai import to_xml
from tasks.registry.compliance.document import compliance, schema
from tasks.registry.compliance.evidence import Evidence
from tasks.registry.compliance.form import FORM
from tasks.registry.compliance.names import CARD, DOCUMENT, PAGE, SCHEMA
from tasks.registry.compliance.page import page
from tasks.registry.lineage.passport import digests_of
from tasks.runtime.files import write_whole


def write_compliance(folder: Path, evidence: Evidence, form_text: str) -> None:
    """Write the document with its schema, CHAI's card, the page and the form that they hold. The same input gives the same bytes.

    ``ValueError`` where ``form_text`` is no form.
    """
    document = compliance(evidence, form_text)
    folder.mkdir(parents=True)
    contents = {
        FORM.name: form_text,
        SCHEMA: json.dumps(schema(), indent=1) + "\n",
        CARD: to_xml(document.chai_applied_model_card),
        PAGE: page(document),
    }
    for name, text in contents.items():
        (folder / name).write_bytes(text.encode())
    write_whole(folder / DOCUMENT, document.model_copy(update={"files": digests_of(folder)}).model_dump(mode="json"))
