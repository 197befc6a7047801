"""The stages of the pipeline, one file each, and the rooms that do their work. Stages know nothing of each other."""

from model.system import openmp  # noqa: F401  before torch, for its settings
