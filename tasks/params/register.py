"""The section ``register`` of params.yaml."""

from typing import Literal

from pydantic import Field

from tasks.gate import GateParams


class RegisterParams(GateParams):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    sign_off: Literal["none", "required"]
