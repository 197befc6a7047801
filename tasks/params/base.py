"""The section ``base`` of params.yaml."""

from typing import Literal

from pydantic import Field

from tasks.stage import Params


class BaseParams(Params):
    source: str = Field(min_length=1)  # name==version of a wheel that holds a GGUF file, or a path
    sha256: str = Field(pattern="^([0-9a-f]{64})?$")  # of the wheel, the GGUF file or the directory (tree_sha256)
    chat_template: Literal["chatml", "own"]
