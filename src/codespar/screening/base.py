"""The port to screening: what leaves the house, as a change or as words, is looked at first.

Screening removes and points out; it never decides whether something is said, and never repeats a secret.
"""

from __future__ import annotations

from typing import Protocol

from codespar.domain.messages import NormalizedResponse

NOTE = "Screened"
"""The name of the field that says what was removed or is pointed out."""


class Screening(Protocol):
    """Callable from any thread. The first call takes a moment: the detectors are loaded."""

    def problems(self, paths: list[str], diff: str, blocked_paths: tuple[str, ...]) -> list[str]:
        """What is wrong with a change, a line each; empty when it may go out. Never quotes a secret. Takes time with a large diff."""
        ...

    def clean(self, text: str) -> str:
        """An agent's words as they may go out: without lines that hold what looks like a secret, and without what nobody would see."""
        ...

    def screen_response(self, response: NormalizedResponse) -> NormalizedResponse:
        """A response as it may be shown, with a field named `NOTE` when something was found; the very same object when nothing was.

        Actions' commands are never changed. Screening a screened response changes nothing.
        """
        ...
