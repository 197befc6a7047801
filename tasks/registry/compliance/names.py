"""What the regulator's folder and its files are called: in a version, and to whoever looks for them."""

import re
from collections.abc import Mapping

FOLDER = "compliance"  # of a version; later ones have numbers
DOCUMENT, SCHEMA, CARD, PAGE = "compliance.json", "compliance.schema.json", "chai-applied-model-card.xml", "compliance.html"
FORM_TAG = "compliance.form"  # of a version: SHA-256 of the form that its newest folder holds
LATER_TAG = re.compile(r"compliance\.(\d+)\.sha256")  # of its document, in a folder that was added later


def newest_folder(tags: Mapping[str, str]) -> str | None:
    """The newest folder of a version with these tags; None for one that was registered before there were any."""
    numbers = [int(match[1]) for tag in tags if (match := LATER_TAG.fullmatch(tag))]
    if FORM_TAG not in tags:
        return None
    return f"{FOLDER}-{max(numbers)}" if numbers else FOLDER
