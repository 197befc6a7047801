"""Files that stand beside data and are none, by their names: licences, read-me files, checksums, what systems leave in folders."""

import re
from pathlib import PurePosixPath

BY_NAME = "is left out by its name"
_BESIDE = (
    (
        re.compile(r"(?:licen[cs]e|copying|readme|read_me|changelog)(?:[-_ ][^.]*)?(?:\.[a-z]{2})?(?:\.(?:txt|md|rst|html?|pdf))?"),
        "a licence or a read-me file",
    ),
    (
        re.compile(r".*\.(?:md5|sha1|sha256|sha512)(?:sums?)?(?:\.txt)?|(?:md5|sha1|sha256|sha512|check)sums?(?:\.txt)?"),
        "a list of checksums",
    ),
    (re.compile(r"(?:export[-_.])?log\.(?:nd)?json|.*\.log|_success"), "the log of an export"),
    (re.compile(r".*\.task\.yaml"), "the definition of an extraction task"),
    (re.compile(r"\.ds_store|thumbs\.db|desktop\.ini|~\$.*|\._.*"), "a file of the system"),
)


def left_out(name: str) -> str:
    """Why a file is no data by its name; empty for one that is read."""
    path = PurePosixPath(name.lower())
    if "__macosx" in path.parts:
        return f"{BY_NAME}, as a file of the system"
    return next((f"{BY_NAME}, as {kind}" for pattern, kind in _BESIDE if pattern.fullmatch(path.name)), "")
