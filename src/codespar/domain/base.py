"""What every value of the vocabulary has in common.

A value never changes: `evolve` makes the next one. In Python its fields are snake_case; on the wire and
in the database they are camelCase JSON. An unknown field is refused, so a misspelt key cannot pass in silence.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


class Value(BaseModel):
    """An immutable value with a camelCase wire form."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # a validator is built when it is first used: a third of the start-up time otherwise
    )

    def evolve(self, **changes: Any) -> Self:
        """The same value with some fields changed, validated again."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(fields | changes)

    def wire(self) -> dict[str, Any]:
        """The JSON-ready form: camelCase keys, only JSON types."""
        return self.model_dump(mode="json", by_alias=True)


class CodesparError(Exception):
    """The root of every error that is ours. Its text says what happened, to what, and what to do next."""


def short_id(prefix: str, seed: str, attempt: int = 0) -> str:
    """An id such as `task-7k2m9q`: `prefix`, a dash and six characters of Crockford's base 32.

    The id follows from `seed` (a delivery id, say), so a repeated decision names the same work. When that id
    is taken by other work, the caller asks again with the next `attempt`.
    """
    digest = hashlib.sha256(f"{prefix}\0{seed}\0{attempt}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    return f"{prefix}-" + "".join(CROCKFORD[(number >> (5 * i)) & 31] for i in range(6))
