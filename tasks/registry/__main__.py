"""``python -m tasks.registry COMMAND``: the registered versions, what stands behind them, and the disk space that they take."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.registry import command, serving_log
from tasks.registry.command import VERSION

# Beyond these drift warns.
LIMITS = {"length": 0.25, "vocabulary": 0.1, "identifiers": 20.0, "nats": 0.25}


def arguments() -> argparse.ArgumentParser:
    """The parser of every command; each sets ``run``, the function of its name."""
    parser = argparse.ArgumentParser(prog="python -m tasks.registry", description="Registered versions of the model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_version_commands(commands)
    _add_upkeep_commands(commands)
    following = commands.add_parser("follow")  # training starts it, nobody types it
    following.set_defaults(run=follow)
    for name in ("stage", "record", "folder"):
        following.add_argument(name)
    return parser


def _command(commands: Any, run: Callable[[argparse.Namespace], "int | str | None"], help_text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        run.__name__.removesuffix("_"), help=help_text, description=help_text[0].upper() + help_text[1:] + "."
    )
    added.set_defaults(run=run)
    return added


def _add_version_commands(commands: Any) -> None:
    _command(commands, list_, "list versions, decisions, and what happened to the aliases")
    promoting = _command(commands, promote, "make a version champion")
    promoting.add_argument("version", nargs="?", default="challenger", help=f"{VERSION}; the challenger by default")
    promoting.add_argument("--allow-dirty", action="store_true", help="although it was made with uncommitted code")
    rolling_back = _command(commands, rollback, "make the previous champion champion again")
    for decided in (promoting, rolling_back):
        decided.add_argument("--by", default=getpass.getuser(), help="who decides; the user's name by default")
        decided.add_argument("--why", default="", help="the reason, which is recorded")
    showing = _command(commands, show, "show what a version was made from, down to the raw files")
    showing.add_argument("version", nargs="?", default="champion", help=f"{VERSION}; the champion by default")
    verifying = _command(commands, verify, "compare every file of a version with its passport")
    command.add_verify_options(verifying)
    auditing = _command(commands, audit, "verify the audit trail, or write it as CSV or as a page of HTML")
    auditing.add_argument("action", choices=("verify", "export", "page"))
    auditing.add_argument(
        "--head", default=[], action="append", metavar="SHA256", help="a digest that was noted, which must be in the trail"
    )
    serving_help = f"a server's log, which belongs to the trail; may be given several times (default {serving_log.FILE}, if there is one)"
    auditing.add_argument("--serving", type=Path, action="append", metavar="FILE", help=serving_help)
    exporting = _command(commands, standards, "write a version's bill of materials, attestations and metadata of its corpus")
    exporting.add_argument("version", help=VERSION)
    exporting.add_argument("folder", type=Path, help="a directory that does not exist yet")
    filing = _command(commands, compliance, "write a version's regulator's folder, with what compliance.yaml states")
    filing.add_argument("version", help=VERSION)
    filing.add_argument("folder", type=Path, help="a directory that does not exist yet")
    listing = _command(commands, sbom, "write the bill of materials of this project, from its lock files")
    listing.add_argument("file", type=Path)
    locating = _command(commands, record, "find a record: its raw file, its shard, and the versions that saw it")
    locating.add_argument("id")
    rebuilding = _command(commands, rebuild, "make a version's weights again from its commit, and compare them bit for bit")
    rebuilding.add_argument("version", nargs="?", default="champion", help=f"{VERSION}; the champion by default")


def _add_upkeep_commands(commands: Any) -> None:
    collecting = _command(commands, gc, "free disk space; what a registered version needs stays")
    collecting.add_argument("--dry-run", action="store_true", help="say what would go")
    collecting.add_argument("--shared", action="store_true", help="also where DVC's cache lies outside this directory")
    collecting.add_argument(
        "--incomplete", action="store_true", help="also where it is not known here which files a version's directory has"
    )
    purging = _command(commands, forget, "remove older copies of withdrawn records from this machine, and list what remains")
    command.add_forget_options(purging)
    opening = _command(commands, patient, "find a patient's records in the raw files, and open a case for their erasure")
    opening.add_argument("numbers", type=Path, help="a file with the patient's number, as the raw files have it; - for standard input")
    opening.add_argument("case", type=Path, help="a file that does not exist yet, for you alone")
    certifying = _command(commands, certificate, "verify the certificate of an erasure, and say what it certifies")
    certifying.add_argument("file", type=Path)
    certifying.add_argument(
        "--public-key", type=Path, required=True, help="the key that must have signed, or authorities that vouch for it"
    )
    certifying.add_argument("--case", type=Path, help="the case that it must be about")
    drifting = _command(commands, drift, "compare new documents with the champion's training corpus")
    drifting.add_argument("documents", type=Path)
    drifting.add_argument("report", type=Path)
    for measure, limit in LIMITS.items():
        drifting.add_argument(f"--{measure}", type=float, default=limit, help=f"warn beyond this (default {limit:g})")
    checking = _command(commands, chain, "check that what is here is what the stages wrote")
    checking.add_argument("stages", nargs="*", metavar="STAGE", help="of dvc.yaml; all by default")


def list_(_: argparse.Namespace) -> None:
    """Print versions, decisions and what happened to the aliases."""
    from tasks.registry import promotion

    promotion.show(_name())


def promote(options: argparse.Namespace) -> None:
    """Make a version champion; ``ValueError`` says why it must not be."""
    from tasks.registry import descriptions, outcomes, tracking

    name = _name()
    number = outcomes.promote_by_hand(name, options.version, by=options.by, why=options.why, allow_dirty=options.allow_dirty)
    descriptions.describe_all(tracking.connect(), name, {str(number)})
    print(f"{name} version {number} is champion")


def rollback(options: argparse.Namespace) -> None:
    """Make the previous champion champion again."""
    from tasks.registry import descriptions, promotion, tracking, versions

    client, name = tracking.connect(), _name()
    former = versions.aliases(client, name).get(promotion.CHAMPION, "")
    number = promotion.rollback(client, name, who=options.by, why=options.why)
    descriptions.describe_all(client, name, {former})
    print(f"{name} version {number} is champion again")


def show(options: argparse.Namespace) -> None:
    """Print what a version was made from."""
    from tasks.registry.lineage import show as lineage

    lineage.show(options.version)


def verify(options: argparse.Namespace) -> int:
    """Compare a version or a deployed directory with its passport; the exit status says whether they are equal."""
    return command.verify(options)


def sbom(options: argparse.Namespace) -> None:
    """Write the bill of materials of this project."""
    from tasks.registry.standards.bom import project_bom
    from tasks.runtime.files import write_whole

    locks = (Path(name).read_text(encoding="utf-8") for name in ("requirements.lock", "torch.lock"))
    write_whole(options.file, project_bom("\n".join(locks)))


def audit(options: argparse.Namespace) -> "str | None":
    """Print what is wrong with the audit trail and its last digest, or print it as CSV or HTML."""
    from tasks.registry import audit as trail
    from tasks.registry import audit_page, hash_chain, tracking

    client, name = tracking.connect(), _name()
    logs = options.serving or [path for path in (serving_log.FILE,) if path.exists()]
    entries = {audit_page.REGISTRY: trail.texts(client, name)} | {str(path): serving_log.texts(path) for path in logs}
    if options.action == "export":
        trail.write_csv(entries, sys.stdout)
        return None
    if options.action == "page":
        print(audit_page.page(name, entries))
        return None
    problems = [f"{of}: {problem}" for of, texts in entries.items() for problem in hash_chain.problems(texts)]
    if problems := [*problems, *hash_chain.lost(entries.values(), options.head)]:
        return "\n".join(f"audit: {problem}" for problem in problems)
    for of, texts in entries.items():
        print(f"audit: {of}: {len(texts)} entries, each follows the one before")
        if texts:
            print(f"audit: {of}: the last one's digest is {hash_chain.sha256(list(texts.values())[-1])}")
    return None


def standards(options: argparse.Namespace) -> None:
    """Write what a version's passport says in the formats of other tools; also of a version that was registered before they were."""
    from tasks.registry.standards import export

    for path in export.export(options.version, options.folder):
        print(path)


def compliance(options: argparse.Namespace) -> None:
    """Write the regulator's folder of a version; also of one that was registered before there was any."""
    from tasks.registry.compliance.export import export

    for path in export(options.version, options.folder):
        print(path)


def record(options: argparse.Namespace) -> None:
    """Print where a record is and which versions saw it."""
    from tasks.registry.lineage import show as lineage

    lineage.record(options.id)


def rebuild(options: argparse.Namespace) -> "str | None":
    """Make a version's weights again; a message where they come out with other bytes."""
    from tasks.registry.upkeep import rebuild as again

    if differing := again.rebuild(options.version):
        return f"rebuild: other bytes came out in {', '.join(differing)}"
    print("rebuild: the weights are equal bit for bit, and so is every other file of the checkpoint")
    return None


def gc(options: argparse.Namespace) -> None:
    """Free disk space."""
    from tasks.registry.upkeep.gc import collect

    collect(shared=options.shared, dry=options.dry_run, incomplete=options.incomplete)


def forget(options: argparse.Namespace) -> None:
    """Remove copies of withdrawn records from this machine; ``ValueError`` where there are no ids."""
    from tasks.registry.upkeep import report

    report.forget(options)


def patient(options: argparse.Namespace) -> None:
    """Open a case for the erasure of a patient's records."""
    from tasks.registry.upkeep import report

    report.patient(options.numbers, options.case)


def certificate(options: argparse.Namespace) -> None:
    """Verify a certificate and print what it says; ``ValueError`` where it is not what was signed."""
    from tasks.registry.upkeep import report

    report.certificate(options.file, options.public_key, options.case)


def drift(options: argparse.Namespace) -> None:
    """Compare new documents with the champion's corpus and write the report."""
    from tasks.registry.upkeep import drift as upkeep

    result = upkeep.drift(options.documents, options.report, limits={measure: getattr(options, measure) for measure in LIMITS})
    print(f"drift: {result.message}")


def chain(options: argparse.Namespace) -> "str | None":
    """Check that outputs are what the stages wrote; a message where they are not."""
    from tasks.runtime.chain import problems, producers

    stages = [producer.stage for producer in producers()]
    if unknown := set(options.stages) - set(stages):
        raise ValueError(f"there is no stage {', '.join(sorted(unknown))} that keeps a record; there are {', '.join(stages)}")
    if broken := dict.fromkeys(problems(stages=options.stages)):
        return "\n".join(f"chain: {problem}" for problem in broken)
    print(f"chain: what is here of {', '.join(options.stages or stages)} is what they wrote")
    return None


def follow(options: argparse.Namespace) -> None:
    """Forward a run's step metrics to the tracking store until standard input closes."""
    from tasks.registry import tracking

    os.nice(19)  # the run that is followed comes first
    tracking.follow(options.stage, options.record, Path(options.folder))


def _name() -> str:
    from tasks.registry.params import RegisterParams
    from tasks.runtime.params import read_section

    return read_section("register", RegisterParams).name


def main() -> None:
    """Parse first, so that help and a mistyped command cost no imports."""
    options = arguments().parse_args()

    def run() -> "int | str | None":
        from tasks.runtime.permissions import close_project

        close_project()
        status: int | str | None = options.run(options)
        return status

    command.finish(options.command, run)


if __name__ == "__main__":
    main()
