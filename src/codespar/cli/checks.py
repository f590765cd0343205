"""What the settings name outside themselves, for `codespar doctor`: keys, tokens, repositories. Only this machine is asked, never a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codespar.config import Settings

SECONDS = 5.0  # for git to read a repository


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `fix` is what to type, or empty when nothing is to be done."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def elsewhere(told: str, answers: bool) -> str:
    """What is missing in this terminal; a server that runs was started from another, perhaps."""
    return told.rstrip(".") + (". The server that runs may have it" if answers else "")


def other_models(settings: Settings, environment: Mapping[str, str], answers: bool) -> list[Check]:
    """The models for plain language and for reviews, where they are set: whether their keys are."""
    from codespar.models.base import ModelNotSet
    from codespar.models.calls import ModelCalls

    checks: list[Check] = []
    for setting in ("understanding", "review"):
        named: str | None = getattr(settings.model, setting)
        if named is None:
            continue
        try:
            ModelCalls(
                settings.model,
                environment,
                setting,
                lambda model: model,
                seconds=1.0,
                instead="",
                on_use=lambda use: None,
            ).check()
        except ModelNotSet as error:
            told = elsewhere(str(error), answers)
            checks.append(Check(f"{setting} model", False, told, required=not answers))
        else:
            checks.append(Check(f"{setting} model", True, f"it has what it needs ({named})"))
    return checks


def github(settings: Settings, environment: Mapping[str, str], answers: bool) -> list[Check]:
    """Whether there is something to show GitHub. GitHub itself is not asked."""
    from codespar.forges.base import AccessLost
    from codespar.forges.github.client import GithubClient
    from codespar.forges.github.credentials import make_credentials

    chosen = settings.github
    if chosen is None:
        return []

    def now() -> datetime:
        return datetime.now(UTC)

    names = [settings.github_name(project.repository) for project in settings.projects]
    name = next((name for name in names if name), "the repositories at GitHub")
    try:
        make_credentials(
            chosen,
            environment,
            name,
            client_factory=lambda shown: GithubClient(api_url=chosen.api_url, credentials=shown, clock=now),
            clock=now,
        )
    except AccessLost as error:
        fix = "# docs/github.md says how to make one, and which permissions it needs"
        return [Check("GitHub", False, elsewhere(str(error), answers), fix, required=not answers)]
    who = f"the App {chosen.app_id}" if chosen.app_id is not None else f"the token in {chosen.token_env}"
    return [Check("GitHub", True, f"{who} is there; whether GitHub takes it shows when the server asks")]


async def repositories(settings: Settings) -> list[Check]:
    """The projects' repositories on this machine that cannot be read. Those elsewhere are not asked."""
    from codespar import git

    checks: list[Check] = []
    for number, project in enumerate(settings.projects):
        if not project.repository.startswith("/"):
            continue
        try:
            await git.run("ls-remote", project.repository, "HEAD", timeout=SECONDS)
        except git.GitError as error:
            there = Path(project.repository).exists()
            told = error.said if there else "it is not there"
            detail = f"projects[{number}].repository: {project.repository} cannot be read: {told}"
            fix = "# name a git repository that this user can read, by its path, its URL or, at GitHub, as owner/name"
            checks.append(Check(f"repository of {project.name}", False, detail, fix))
    return checks


def tokens(settings: Settings, environment: Mapping[str, str], answers: bool) -> list[Check]:
    """The people whose API tokens are named and not set."""
    return [
        Check(
            f"API token of {person.name}",
            False,
            elsewhere(f"{person.token_env} is not set, so it opens nothing", answers),
            f"export {person.token_env}=…   # of the server",
            required=False,
        )
        for person in settings.people
        if person.token_env and not environment.get(person.token_env)
    ]
