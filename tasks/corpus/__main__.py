"""``python -m tasks.corpus data``: the default raw corpus, built from pinned packages.

``python -m tasks.corpus explain FILE``: what every rule changes in a raw file.
``python -m tasks.corpus annotate``: a page on which a person marks identifiers and damage in the site's own notes.
"""

import argparse
import sys
from pathlib import Path

PROG = "python -m tasks.corpus"


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    commands = {"explain": explain, "annotate": annotate}
    if sys.argv[1:] and sys.argv[1] in commands:
        commands[sys.argv[1]](sys.argv[2:])
    else:
        build(sys.argv[1:])


def build(arguments: list[str]) -> None:
    """Build the default raw corpus."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Build the default raw corpus from pinned packages.",
        epilog=f"'{PROG} explain FILE' lists what every rule changes in a raw file; '{PROG} annotate' opens a page for marking your notes",
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only-for", type=Path, metavar="FILE.dvc", help="refuse where this file points at another corpus")
    options = parser.parse_args(arguments)
    from tasks.corpus.default_corpus import build, is_default_corpus
    from tasks.runtime.permissions import close_to_others

    try:
        close_to_others()
        if options.only_for and not is_default_corpus(options.only_for):
            raise ValueError(f"{options.only_for} points at a corpus of your own; get it with 'dvc pull {options.only_for}'")
        build(options.directory)
    except (ValueError, OSError) as error:
        sys.exit(f"corpus: {error}")
    files = [path for path in options.directory.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"corpus: {options.directory} holds {len(files)} files, {size:.0f} MB")


def explain(arguments: list[str]) -> None:
    """List what every rule changes in a raw file, in a file that its owner alone may read; print counts alone."""
    parser = argparse.ArgumentParser(
        prog=f"{PROG} explain", description="List what every rule changes in a raw file. The list stays on this machine, mode 0600."
    )
    parser.add_argument("file", type=Path, help="a raw file; one below data/ is read with its options in params.yaml")
    parser.add_argument("--out", type=Path, help="where the list goes: lines of JSON; .cache/explain/NAME.jsonl by default")
    options = parser.parse_args(arguments)
    from tasks.corpus.explain import EXPLANATIONS, NOT_READ, explain
    from tasks.corpus.params import PreprocessParams
    from tasks.runtime.artifacts import RAW
    from tasks.runtime.params import read_section
    from tasks.runtime.permissions import close_to_others

    target = options.out or EXPLANATIONS / f"{options.file.name}.jsonl"
    try:
        close_to_others()
        counts = explain(options.file, RAW, target, read_section("preprocess", PreprocessParams))
    except (ValueError, OSError) as error:
        sys.exit(f"explain: {error}")
    for (step, rule), count in sorted(counts.items()):
        print(f"{step:12} {rule:20} {count:8,}")
    changes = sum(count for (step, _), count in counts.items() if step != NOT_READ)
    print(f"explain: {changes:,} changes; {target} lists them with text of the records, for you alone")


def annotate(arguments: list[str]) -> None:
    """Serve the page for annotating a sample of the notes in data/, or measure the rules on what is annotated."""
    parser = argparse.ArgumentParser(
        prog=f"{PROG} annotate",
        description="Mark identifiers and damage in a sample of the notes in data/, on a page that only this machine reaches.",
    )
    parser.add_argument("--notes", type=int, help="size of the sample, at most 5000; 200, or that of the annotation that is here")
    parser.add_argument("--seed", type=int, help="of the sample; preprocess.seed, or that of the annotation that is here")
    parser.add_argument("--port", type=int, default=8010, help="of the page on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--report", action="store_true", help="measure the rules of now on the notes that are finished, without a page")
    options = parser.parse_args(arguments)
    if options.report and (options.notes, options.seed) != (None, None):
        parser.error("--report takes the notes that are finished, whatever was drawn")
    from tasks.corpus.annotation import command
    from tasks.corpus.params import PreprocessParams
    from tasks.runtime.artifacts import RAW
    from tasks.runtime.params import read_section
    from tasks.runtime.permissions import close_to_others

    try:
        close_to_others()
        params = read_section("preprocess", PreprocessParams)
        if options.report:
            command.report(RAW, params)
        else:
            command.annotate(RAW, params, notes=options.notes, seed=options.seed, port=options.port)
    except (ValueError, OSError) as error:
        sys.exit(f"annotate: {error}")
    except KeyboardInterrupt:
        sys.exit("annotate: stopped; what was marked is kept")


if __name__ == "__main__":
    main()
