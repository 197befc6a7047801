"""The package index that pip is configured for, for uv, which reads no file of pip's. Only the standard library."""

import ast
import os
import re
import subprocess
from collections.abc import Mapping

NO_INDEX = "UV_NO_INDEX"  # which uv itself does not read: install.py makes its option of it
# pip's name of a setting: uv's variable, and what stands between several values there.
SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": (NO_INDEX, " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
REMEDY = """\
    remedy, whichever it is; then make again, it goes on where it was:
      behind a proxy     export HTTPS_PROXY=http://HOST:PORT
      an index inside    pip config set global.index-url URL
      a certificate      pip config set global.cert FILE
      without a network  the files that make bundle wrote where there is one"""


def configuration(listing: str) -> dict[str, str]:
    """The settings of ``pip config list``; a variable (``:env:``) counts more than a file, and of files the last."""
    settings = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        if match := re.fullmatch(r"(?::env:\.|\w+\.)([a-z-]+)=(.*)", line):
            settings[match[1]] = str(ast.literal_eval(match[2]))
    return settings


def uv_environment(pip: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``environment`` with pip's settings in uv's variables; what stands there already stays."""
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    for name, (variable, separator) in SETTINGS.items():
        if pip.get(name):
            settings[variable] = separator.join(pip[name].split()) if name not in ("cert",) else pip[name]
    if "extra-index-url" in pip:
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip looks; what the lock names is pinned by its hash
    return settings | dict(environment)


def pip_environment(python: str) -> dict[str, str]:
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    return uv_environment(configuration(listing))


def reason(output: str) -> str:
    """What a failed pip or uv says, in its own words, without what an address may hold of credentials."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.lower().startswith(("error", "caused by", "cause", "╰─▶"))] or lines[-3:]
    return "\n".join(f"    {re.sub(r'//[^/@]*@', '//', line)}" for line in telling[:6])
