"""The issue that `fix #12` names, read for the task that is to mend it.

Anybody may be able to write an issue: what is read is screened and bounded before it is kept, and reaches the coding agent as data.
"""

from __future__ import annotations

import asyncio

from codespar.agents import broken
from codespar.agents.turn import Facts
from codespar.domain.issues import QuotedIssue, alone, named
from codespar.domain.messages import FieldLine
from codespar.domain.tasks import Task
from codespar.forges.base import AccessLost, Forge, ForgeError, ForgeUnavailable, Gone
from codespar.screening.base import Screening

_MOST_READ = 100_000  # characters that are screened
_SECONDS = 15.0  # for which a person who wants something mended waits for the host


def meant(text: str) -> int | None:
    """The issue that `fix <text>` is about; None when it names none, or means a build."""
    return None if broken.asked(text) is not None else named(text)


async def read(forge: Forge, screening: Screening, number: int) -> Facts:
    """The issue, or why there is none to be mended. Where the host cannot show issues at all, the task is to go by its instruction.

    Raises `ForgeUnavailable` and `AccessLost`, after which nothing is known of it.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            found = await forge.issue(number)
    except TimeoutError as error:
        raise ForgeUnavailable(f"{forge.repository_name} did not answer within {_SECONDS:.0f} s") from error
    except (ForgeUnavailable, AccessLost):
        raise
    except Gone as error:
        return Facts(
            problem=f"There is no issue #{number} in {forge.repository_name}. {error}",
            able="name another issue, or leave the number out and say in words what to mend",
        )
    except ForgeError as error:
        return unread(number, str(error))
    title, body = await asyncio.to_thread(
        lambda: (screening.clean(found.title[:_MOST_READ]), screening.clean(found.body[:_MOST_READ]))
    )
    issue = QuotedIssue.of(number, title, body, found.author, open=found.open)
    shown = (FieldLine(name="Issue", value=issue.told),)
    return Facts(title=issue.title, text=issue.quoted, shown=shown, issue=issue)


def unread(number: int, why: str) -> Facts:
    """The facts of a task that begins without its issue's text."""
    issue = QuotedIssue(number=number, unread=f"{why.rstrip('. ')}.")
    return Facts(shown=(FieldLine(name="Issue", value=issue.told),), issue=issue)


def instruction(task: Task) -> str:
    """What the coding agent is told to do. The issue goes beside it, as data."""
    if task.issue is None or not alone(task.instruction):
        return task.instruction
    known = "could not be read" if task.issue.unread else "are in the context"
    return f"Fix what issue #{task.issue.number} describes. Its title and text {known}."


def subject(task: Task) -> str:
    """What the code index is asked about."""
    issue = task.issue
    return task.instruction if issue is None else f"{task.instruction}\n{issue.title}\n{issue.body}"
