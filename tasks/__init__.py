"""The stages of the pipeline, one file each, and the rooms that do their work. Stages know nothing of each other."""

import model  # noqa: F401  before torch, for its settings of OpenMP
