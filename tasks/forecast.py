"""How long a stage will take on this machine, and the stages after it, said before it starts.

What earlier runs here took is kept in ``.cache/durations.json``, with the amount of work: bytes of raw data, tokens times bytes of
weights. A first run is judged by what the default run took on a processor of the same class, and then says a range. It changes no byte
of an output, so no stage depends on it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tasks.params import STAGES
from tasks.runtime.artifacts import BASE, RAW, RECORDS
from tasks.runtime.files import whole
from tasks.runtime.params import Params
from tasks.runtime.words import duration

DURATIONS = Path(".cache/durations.json")
START, STARTS = 4.0, {"preprocess": 12.0}  # seconds that a stage takes with next to no work: imports; and recall, which is measured anyway
SAME = 1.25  # amounts that differ by no more take as long
ROUGH = 1.6  # a forecast from another amount or other params may be wrong by this factor,
FIRST = 2.0  # and one from another machine by this
# What does not run again because its predecessor in the order of the stages did.
INDEPENDENT = {"base": ("preprocess", "augment")}


@dataclass(frozen=True)
class Work:
    """What a stage has to do: an amount of a unit, under params of a digest."""

    unit: str
    amount: float  # 0 where it is not known yet
    params: str


@dataclass(frozen=True)
class Measured:
    """What a run of a stage took."""

    work: Work
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """Between how many seconds a stage takes; ``measured`` on this machine, or not."""

    low: float
    high: float
    measured: bool

    def words(self) -> str:
        """``about 40 s``, or a range."""
        low, high = duration(self.low), duration(self.high)
        return f"about {low}" if low == high else f"{low} to {high}"


# Seconds of the default run on two cores, by class of processor, with its amounts: bytes of raw data and of weights, and tokens.
DATA, WEIGHTS, TOKENS = 126e6, 269e6, 60 * 1024
FIGURES: dict[str, dict[str, float]] = {
    "bfloat16": {"base": 10, "preprocess": 62, "augment": 8, "shard": 8, "finetune": 310, "validate": 170, "register": 12},
    "float32": {"base": 15, "preprocess": 80, "augment": 10, "shard": 10, "finetune": 480, "validate": 260, "register": 15},
}


def announce(stage: str, params: Mapping[str, Params]) -> str:
    """The sentence that a stage begins with: its own time, and that of it and the stages that run after it."""
    durations = _read()
    following = [name for name in STAGES[STAGES.index(stage) + 1 :] if _follows(stage, name)]
    forecasts = {name: forecast(name, work_of(name, params), durations.get(name)) for name in (stage, *following)}
    own = forecasts[stage]
    sentence = f"{stage}: {own.words()} here" if own else f"{stage}: no estimate before a first run here"
    if own and not own.measured:
        sentence += ", going by other machines"
    if not following:
        return sentence
    known = [one for one in forecasts.values() if one]
    total = Forecast(sum(one.low for one in known), sum(one.high for one in known), measured=True)
    words = total.words() if len(known) == len(forecasts) else f"more than {duration(total.low)}"
    return f"{sentence}; with the stages after it {words}"


def remember(stage: str, work: Work) -> None:
    """Keep what this process took, as that of a whole run of the stage."""
    durations = _read() | {stage: Measured(work, time.time() - psutil.Process().create_time())}
    DURATIONS.parent.mkdir(exist_ok=True)
    with whole(DURATIONS, unique=True) as partial:
        partial.write_text(json.dumps({name: asdict(one) for name, one in durations.items()}, indent=1) + "\n", encoding="utf-8")


def forecast(stage: str, work: Work, measured: Measured | None) -> Forecast | None:
    """From what an earlier run here took or, where there is none, from the default run's figures; None where neither says anything."""
    if measured and measured.work.unit == work.unit:
        ratio = work.amount / measured.work.amount if work.amount and measured.work.amount else 1.0
        if measured.work == work or (measured.work.params == work.params and work.amount and 1 / SAME < ratio < SAME):
            return Forecast(measured.seconds, measured.seconds, measured=True)
        return _between(_scaled(stage, measured.seconds, ratio), ROUGH, measured=True)
    if not (reference := _reference(work.unit)):
        return None
    ratio = work.amount / reference if work.amount else 1.0
    return _between(_scaled(stage, FIGURES[_processor_class()][stage], ratio), FIRST, measured=False)


def work_of(stage: str, params: Mapping[str, Params]) -> Work:
    """What a stage has to do, as far as it can be known before the stages before it have run."""
    section = params[stage]
    digest = hashlib.sha256(section.model_dump_json().encode()).hexdigest()[:16]
    unit, amount = AMOUNTS.get(stage, _of_data)(section.model_dump())
    return Work(unit, amount, digest)


def _of_data(_: Mapping[str, object]) -> tuple[str, float]:
    return "bytes of data", float(sum(path.stat().st_size for path in RAW.rglob("*") if path.is_file()))


def _of_weights(_: Mapping[str, object]) -> tuple[str, float]:
    return "bytes of weights", float(sum(path.stat().st_size for path in BASE.glob("*.safetensors")))


def _of_training(section: Mapping[str, object]) -> tuple[str, float]:
    steps, batch, seq_len, epochs = (section[name] for name in ("steps", "batch", "seq_len", "epochs"))
    assert isinstance(steps, int) and isinstance(batch, int) and isinstance(seq_len, int) and isinstance(epochs, float)
    weights = _of_weights(section)[1]
    if epochs:  # how many tokens these are is not known before there are shards
        return "epochs x bytes of data x bytes of weights", epochs * _of_data(section)[1] * weights
    return "tokens x bytes of weights", steps * batch * seq_len * weights


AMOUNTS: dict[str, Callable[[Mapping[str, object]], tuple[str, float]]] = {
    "base": _of_weights,
    "finetune": _of_training,
    "validate": _of_weights,
    "register": _of_weights,
}


def _reference(unit: str) -> float:
    """The default run's amount of a unit; 0 for a unit that it has none of."""
    return {"bytes of data": DATA, "bytes of weights": WEIGHTS, "tokens x bytes of weights": TOKENS * WEIGHTS}.get(unit, 0.0)


def _scaled(stage: str, seconds: float, ratio: float) -> float:
    start = min(STARTS.get(stage, START), seconds)
    return start + (seconds - start) * ratio


def _between(seconds: float, factor: float, *, measured: bool) -> Forecast:
    return Forecast(seconds / factor, seconds * factor, measured)


def _follows(stage: str, other: str) -> bool:
    """Whether DVC will run the other stage too: it needs this one's outputs, or never ran here."""
    return other not in INDEPENDENT.get(stage, ()) or not (RECORDS / f"{other}.json").exists()


def _processor_class() -> str:
    """Whether its matrix products are fast in bfloat16 (AVX512-BF16, AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _read() -> dict[str, Measured]:
    """What is kept; nothing where it cannot be read, as forecasts are no reason to stop."""
    try:
        content = json.loads(DURATIONS.read_bytes())
        return {name: Measured(Work(**one["work"]), float(one["seconds"])) for name, one in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
