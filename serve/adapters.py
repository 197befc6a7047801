"""Adapters that answer beside their base model, in its engine: verified by their own passports, and against the model that is served.

A ``source`` is that of a registered version that was trained with an adapter, or a directory: the checkpoint of such a version, or the
adapter's files in PEFT's format, with the version's passport beside them.
"""

import time
from dataclasses import replace
from pathlib import Path

from model.generation.adapters import Adapter, read_adapter
from serve import models, verified
from serve.engine import run_in_fresh_thread
from serve.models import EngineOptions, ModelRefused, ServedModel
from serve.verified import ModelLocation, Verification


def open_adapter(location: ModelLocation, base: ServedModel, options: EngineOptions) -> ServedModel:
    """Verify an adapter, load it for the engine of its base model, and run the smoke test. ``ModelRefused`` says why it is not served."""
    verification = verified.check_adapter(location)
    models.refuse_unverified(location, verification, options)
    if verification.document:
        _check_base(location, verification, base)
    with models.refusing(location):
        if verification.problems:
            adapter = _read(verified.adapter_folder(location.directory), base)
        else:
            with verified.adapter_copy(location, verification) as directory:
                adapter = _read(directory, base)
    served = replace(base, location=location, verification=verification, card=None, adapter=adapter, opened=int(time.time()))
    models.smoke_test(served)
    return served


def _read(directory: Path, base: ServedModel) -> Adapter:
    try:
        return run_in_fresh_thread(read_adapter, directory, base.engine.model)
    except ValueError as error:
        raise ValueError(verified.without_path(directory, str(error))) from None


def _check_base(location: ModelLocation, verification: Verification, base: ServedModel) -> None:
    """``ModelRefused`` unless the adapter was trained on the model that is served."""
    trained_on, served = verified.deciding(verified.base_files(verification)), base.base_files
    name, base_name = models.display_name(location), models.display_name(base.location)
    if not trained_on:
        raise ModelRefused(f"the passport of {name} does not list the base model that it was trained on")
    if differing := sorted(file for file in trained_on.keys() | served.keys() if trained_on.get(file) != served.get(file)):
        raise ModelRefused(f"{name} was trained on another base model than {base_name}: {', '.join(differing[:5])} differ")
