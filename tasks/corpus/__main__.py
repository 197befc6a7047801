"""``python -m tasks.corpus data``: the default raw corpus, built from pinned packages.

``python -m tasks.corpus explain FILE``: what every rule changes in a raw file.
"""

import argparse
import sys
from pathlib import Path

PROG = "python -m tasks.corpus"


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    if sys.argv[1:2] == ["explain"]:
        explain(sys.argv[2:])
    else:
        build(sys.argv[1:])


def build(arguments: list[str]) -> None:
    """Build the default raw corpus."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Build the default raw corpus from pinned packages.",
        epilog=f"'{PROG} explain FILE' lists what every rule changes in a raw file",
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only-for", type=Path, metavar="FILE.dvc", help="refuse where this file points at another corpus")
    options = parser.parse_args(arguments)
    from tasks.corpus.default_corpus import MANIFEST, SOURCES, build, is_default_corpus
    from tasks.runtime.permissions import close_to_others

    try:
        close_to_others()
        if options.only_for and not is_default_corpus(options.only_for):
            raise ValueError(f"{options.only_for} points at a corpus of your own; get it with 'dvc pull {options.only_for}'")
        build(options.directory)
    except (ValueError, OSError) as error:
        sys.exit(f"corpus: {error}")
    size = sum(f.stat().st_size for f in options.directory.iterdir()) / 1e6
    print(f"corpus: {options.directory} holds {len(SOURCES)} raw files and {MANIFEST}, {size:.0f} MB")


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


if __name__ == "__main__":
    main()
