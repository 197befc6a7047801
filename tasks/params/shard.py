"""The section ``shard`` of params.yaml."""

from typing import Literal

from pydantic import Field

from tasks.stage import Params


class ShardParams(Params):
    loss_on: Literal["answer", "all"]
    max_tokens: int = Field(ge=1024)
