"""The licences of everything that requirements.lock installs, against a list of those that a hospital may use and pass on."""

import re
from importlib import metadata

from helpers.project import ROOT

# As packages state them: SPDX's identifiers, and the names of PyPI's classifiers.
ALLOWED = frozenset(
    "MIT, MIT-0, MIT-CMU, MIT License, Apache-2.0, Apache License 2.0, Apache Software License, BSD-2-Clause, BSD-2-Clause-Patent, "
    "BSD-3-Clause, BSD, BSD License, 3-Clause BSD License, 0BSD, ISC, ISC License (ISCL), PSF-2.0, Python Software Foundation License, "
    "Zlib, CC0-1.0, CNRI-Python, MPL-2.0, Mozilla Public License 2.0 (MPL 2.0), The Unlicense (Unlicense), Zope Public License".split(", ")
)
# With a condition that was looked at, or without a word in its metadata.
REVIEWED = {
    "asyncssh": "EPL-2.0 or GPL-2.0: the former; DVC's remotes over SSH use it",
    "grandalf": "GPL-2.0 or EPL-1.0: the latter; DVC draws graphs with it",
    "psycopg2-binary": "LGPL with exceptions: used unchanged, as a library",
    "pygit2": "GPL-2.0 with an exception for programs that link it",
    "python-stdnum": "LGPL-2.1 or later: used unchanged, as a library",
    "text-unidecode": "Artistic License or GPL: the former",
    "huey": "MIT, in its repository",
    "sigstore-models": "Apache-2.0, in its repository",
    "skops": "MIT, in its repository",
}


def stated(package: str) -> str:
    """What a package says of itself: an SPDX expression, else classifiers, else the field License."""
    fields = metadata.metadata(package)
    classifiers = [c.split("::")[-1].strip() for c in fields.get_all("Classifier") or [] if re.match("License :: .* :: ", c)]
    (expression, *_), (field, *_) = (fields.get_all(name) or [""] for name in ("License-Expression", "License"))
    return str(expression or " OR ".join(classifiers) or field.partition("\n")[0])  # some put the whole text there


def is_allowed(expression: str) -> bool:
    """Whether all of it may be used, or of alternatives one."""
    return all(any({one.strip(), one.strip("() ")} & ALLOWED for one in part.split(" OR ")) for part in expression.split(" AND "))


def test_every_dependency_has_a_licence_that_was_allowed() -> None:
    locked = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M)
    installed = {name: stated(name) for name in locked if any(metadata.distributions(name=name))}
    assert len(installed) > 200  # the others are for another system
    assert {name: licence for name, licence in installed.items() if not is_allowed(licence) and name not in REVIEWED} == {}
    assert not [name for name in REVIEWED if name not in installed or is_allowed(installed[name])], "not needed any more"
