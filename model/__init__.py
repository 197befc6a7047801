"""A library of Llama-family models: layers, adapters, loss. It knows nothing of pipelines, trackers or networks."""

from model.system.openmp import set_defaults

set_defaults()
