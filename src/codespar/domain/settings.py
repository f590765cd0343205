"""What every part of a settings file has in common, wherever the part is defined: a channel's settings stand beside its adapter."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from codespar.domain.base import Value

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Section(Value):
    """A part of a settings file: its keys are the fields' names, in snake_case as people write them."""

    model_config = ConfigDict(alias_generator=None)


def variable_name(value: str) -> str:
    if not re.fullmatch(_VARIABLE, value, re.ASCII):
        raise ValueError(
            "must be the name of an environment variable, such as ANTHROPIC_API_KEY, and never the secret itself"
        )
    return value


def web_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("must be an address such as https://api.anthropic.com")
    return value.rstrip("/")


Variable = Annotated[str, Field(json_schema_extra={"pattern": _VARIABLE}), AfterValidator(variable_name)]
"""The name of an environment variable that holds a secret."""
Filled = Annotated[str, Field(min_length=1)]
WebAddress = Annotated[str, AfterValidator(web_address)]
