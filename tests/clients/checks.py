"""What the programs of this folder share: the server's address from the command line, and one line per behaviour that holds."""

import sys
from typing import Annotated, Literal

from pydantic import BaseModel, Field

URL = f"{sys.argv[1]}/v1"
CLOSING_BRACE = sys.argv[2]  # its token id, with which a random model ends an object
MODEL, KEY = "medical-llm", "none"
QUESTION = "What are the signs of condition 3?"


class Vitals(BaseModel):
    """The vital signs of a patient."""

    pulse: Annotated[int, Field(ge=20, le=300)]
    state: Literal["awake", "asleep"]


class Anything(BaseModel):
    """An object that may be empty."""

    pulse: int = 0


def holds(name: str, fact: object) -> None:
    """Print the name of a behaviour; ``SystemExit`` where it does not hold."""
    if not fact:
        sys.exit(f"{name} does not hold")
    print(name, flush=True)
