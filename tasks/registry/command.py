"""How a command of the registry ends, and the command ``verify``, which works without MLflow where a directory is verified."""

import argparse
import getpass
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tasks.runtime.errors import Unavailable
from tasks.runtime.processes import INTERRUPTED

if TYPE_CHECKING:
    from tasks.registry.lineage.passport import Finding

CHAMPION = "models:/medical-llm@champion"
VERSION = f"a version: {CHAMPION}, models:/NAME/NUMBER, or of the model of params.yaml an alias or a number"


def finish(command: str, run: Callable[[], "int | str | None"]) -> NoReturn:
    """Run a command and exit with what it returns; with one line and status 1 for what its user can fix, 75 (EX_TEMPFAIL of
    sysexits.h) where the same command may succeed later."""
    try:
        status = run()
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:  # `| head` has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL if isinstance(error, Unavailable) else 1)
    except KeyboardInterrupt:
        print(f"{command}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ImportError:
        raise
    except Exception as error:
        from tasks.registry.tracking import MlflowException

        if not isinstance(error, MlflowException):
            raise
        sys.exit(f"{command}: {error}")


def add_verify_options(parser: argparse.ArgumentParser) -> None:
    """What is verified, and by whose key."""
    parser.add_argument("version", nargs="?", default="", help=f"{VERSION}; with --deployed it may be left out")
    parser.add_argument("--deployed", type=Path, metavar="DIR", help="the directory that a serving host has, instead of what is here")
    parser.add_argument("--public-key", type=Path, help="demand a signature by this key or authority (PASSPORT_PUBLIC_KEY by default)")


def add_forget_options(parser: argparse.ArgumentParser) -> None:
    """Which records go, from where, and what is certified of it."""
    parser.add_argument("ids", nargs="*", help="ids of records; those of preprocess.withdrawn by default")
    parser.add_argument("--case", type=Path, help="a case that 'patient' opened, instead of ids")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="with --case: a new file for the signed certificate")
    parser.add_argument("--remote", action="append", default=[], metavar="NAME", help="a DVC remote to delete from too; may be repeated")
    parser.add_argument("--by", default=getpass.getuser(), help="who erases; the user's name by default")


def verify(options: argparse.Namespace) -> int:
    """Compare a version or a deployed directory with its passport; the exit status is ``print_findings``'."""
    from tasks.registry.lineage import verification

    key = options.public_key or verification.public_key()
    return print_findings(findings(options.version, deployed=options.deployed, public_key=key))


def findings(which: str, *, deployed: Path | None, public_key: Path | None) -> "Iterator[Finding]":
    """What verification says of a version, of the champion where none is named, or of a directory; MLflow is asked for a version alone."""
    from tasks.registry.lineage import verification

    version = None
    if named := which or ("" if deployed else CHAMPION):
        from tasks.registry import tracking, versions

        version = versions.find(tracking.connect(), named)
    return verification.verify(version, deployed=deployed, public_key=public_key)


def print_findings(findings: "Iterator[Finding]") -> int:
    """Print all but what is equal, of which only the count per tree. The exit status: 1 where a file differs, 2 where all are as the
    passport says and nobody vouches for the passport."""
    from tasks.registry.lineage.passport import Finding

    equal: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for finding in findings:
        states[finding.state] += 1
        if finding.state == "equal":
            equal[finding.tree] += 1
        else:
            print(finding)
    for tree, count in equal.items():
        print(Finding("equal", tree, "", f"{count} files" if count > 1 else ""))
    counts = f"{states['equal']} equal, {states['differs']} differ, {states['absent']} absent on this machine"
    print(counts + (f", {states['unstated']} that its older passport does not state" if states["unstated"] else ""))
    return 1 if states["differs"] else 2 if states["unknown"] else 0
