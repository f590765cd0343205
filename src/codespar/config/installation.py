"""`codespar.yaml`: the installation's settings, and how they are read.

A section that is large, or that others read as well, has a file of its own; here they are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, create_model

from codespar.config.chat import (
    ChannelRoute,
    ChannelsSettings,
    NotificationSettings,
    ScreeningSettings,
    section_for,
)
from codespar.config.housekeeping import HousekeepingSettings
from codespar.config.limits import LIMIT_FIELDS, LimitSettings
from codespar.config.model import ModelSettings
from codespar.config.policies import (
    ApprovalSettings,
    AutonomyPolicy,
    DeployEnvironment,
    FreezeSettings,
    GuardedPaths,
    PolicyRule,
    check_policies,
    policy_of,
)
from codespar.config.rules import check_installation
from codespar.config.units import AutonomyLevel, Duration
from codespar.config.work import ReviewSettings, ScheduleSettings, check_schedules
from codespar.config.yaml import ConfigError, Problem, load
from codespar.domain.messages import ChannelName
from codespar.domain.people import Role
from codespar.domain.policy import Policy, Rollbacks
from codespar.domain.settings import Filled, Section, Variable
from codespar.domain.tasks import Limits
from codespar.forges.github.settings import FULL_NAME, GithubSettings

_URL = re.compile(
    r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:", re.IGNORECASE
)  # as git reads them: with a scheme, or host:path


def _postgresql(value: str) -> str:
    if not value.startswith(("postgresql://", "postgresql+psycopg://")):
        raise ValueError("must start with postgresql://; leave it out for SQLite in data_dir")
    return value


class ServerSettings(Section):
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="the address to listen on; put TLS in front of any but loopback",
    )
    port: int = Field(
        default=7477, ge=0, le=65535, strict=True, description="the port to listen on; 0 picks a free one"
    )


class SandboxSettings(Section):
    docker_host: str | None = Field(
        default=None, description="the Docker Engine; left out: DOCKER_HOST, else the local socket"
    )
    base_image: str | None = Field(
        default=None,
        description="a Debian or Ubuntu image to build task images from; left out: the public Debian one, or one made with debootstrap",
    )
    ca_bundle: Path | None = Field(
        default=None,
        description="certificate authorities that image builds trust as well; left out: SSL_CERT_FILE where set",
    )
    caps: LimitSettings = Field(
        default=LimitSettings(),
        description="the most a project or repository may raise its limits to; left out: twice `limits`",
    )


class PersonSettings(Section):
    name: str = Field(min_length=1, description="the person's name, as messages show it")
    role: Role = Field(description="what they may do; see permissions.md")
    id: str | None = Field(
        default=None, min_length=1, description="a lasting id; left out: the name in lower case with dashes"
    )
    token_env: Variable | None = Field(
        default=None, description="the environment variable that holds the person's API token"
    )
    identities: dict[ChannelName, Filled] = Field(
        default={}, description="the person's own ids on chat platforms, by channel"
    )


class ProjectSettings(Section):
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,60}$", description="lower-case letters, digits and dashes"
    )
    repository: str = Field(
        min_length=1,
        description="a path or a URL that git understands, without credentials; with `github` set up also `owner/name`",
    )
    alias: tuple[Filled, ...] = Field(default=(), description="short names by which people call it")
    autonomy: AutonomyLevel = Field(
        default=1, description="what its agent may do by itself, 0 to 5; see permissions.md"
    )
    max_concurrent_tasks: int = Field(default=3, ge=1, le=50, strict=True, description="task slots")
    limits: LimitSettings = Field(
        default=LimitSettings(), description="of this project's tasks, instead of the installation's"
    )
    blocked_paths: tuple[Filled, ...] = Field(
        default=(), description="gitignore-style patterns that no change may touch"
    )
    channels: tuple[ChannelRoute, ...] = Field(
        default=(), description="where the team talks to this project's agent"
    )
    webhook_secret_env: Variable | None = Field(
        default=None,
        description="the environment variable that holds this repository's own webhook secret; left out: that of `github`",
    )
    schedules: tuple[ScheduleSettings, ...] = Field(
        default=(), description="commands that come by the clock, such as a report every morning"
    )

    def task_limits(self, settings: Settings) -> Limits:
        """The limits of this project's tasks."""
        return Limits(**(settings.limits.given() | self.limits.given()))


class BudgetPolicy(Section):
    answer_within: Duration = Field(
        default=3600.0, description="how long a task at its limit waits for an answer; then it ends"
    )


class PolicySettings(Section):
    budget: BudgetPolicy = Field(
        default=BudgetPolicy(), description="what happens when a task reaches a limit"
    )
    autonomy: AutonomyPolicy = Field(
        default=AutonomyPolicy(), description="how far any project's autonomy may go"
    )
    rollback: Rollbacks = Field(
        default=Rollbacks.AUTO,
        description="auto: a bad deploy is rolled back at once, as its approvers approved; ask: that asks again",
    )
    approvals: ApprovalSettings = Field(
        default=ApprovalSettings(), description="how many people approve, and how long they have"
    )
    environments: tuple[DeployEnvironment, ...] = Field(
        default=(),
        description="where deploys go; one that is not named counts as production, but for staging",
    )
    freezes: tuple[FreezeSettings, ...] = Field(
        default=(), description="times without deploys; a rollback is always possible"
    )
    rules: tuple[PolicyRule, ...] = Field(
        default=(), description="who may not do what where, and what needs an approval"
    )
    paths: tuple[GuardedPaths, ...] = Field(default=(), description="what no agent changes without a human")

    def policy(self) -> Policy:
        """What `authorize` goes by."""
        sections = {name: getattr(self, name) for name in type(self).model_fields if name != "budget"}
        return policy_of(**sections)


class Settings(Section):
    """`codespar.yaml`."""

    data_dir: Path = Field(
        default=Path(".codespar"),
        description="databases, repositories and task folders; relative to this file",
    )
    database_url: Annotated[str, AfterValidator(_postgresql)] | None = Field(
        default=None,
        description="postgresql://…, without a password (PGPASSWORD holds it); left out: SQLite in data_dir",
    )
    server: ServerSettings = Field(
        default=ServerSettings(), description="where the API and the dashboard listen"
    )
    model: ModelSettings = Field(default=ModelSettings(), description="the language model")
    sandbox: SandboxSettings = Field(default=SandboxSettings(), description="where tasks run")
    limits: LimitSettings = Field(
        default=LimitSettings(), description="of every task; a project may set its own"
    )
    policies: PolicySettings = Field(default=PolicySettings(), description="the rules of the installation")
    github: GithubSettings | None = Field(
        default=None,
        description="GitHub as the code host; left out: pull requests are kept by CodeSpar itself",
    )
    look_every: Duration = Field(
        default=60.0,
        description="how often a repository that is not at GitHub is looked at for pushes, pull requests and builds",
    )
    reviews: ReviewSettings = Field(default=ReviewSettings(), description="how pull requests are reviewed")
    housekeeping: HousekeepingSettings = Field(
        default=HousekeepingSettings(), description="how long what is of no use any more is kept"
    )
    channels: ChannelsSettings = Field(
        default=ChannelsSettings(), description="the chat platforms that are set up"
    )
    notifications: NotificationSettings = Field(
        default=NotificationSettings(), description="what is told unasked, and when"
    )
    screening: ScreeningSettings = Field(
        default=ScreeningSettings(), description="what is pointed out in everything that is said"
    )
    people: tuple[PersonSettings, ...] = Field(
        default=(), description="who may do what; unknown people are read-only"
    )
    projects: tuple[ProjectSettings, ...] = Field(default=(), description="the linked repositories")

    def aliases(self) -> dict[str, str]:
        """Lower-case names by which a project can be called."""
        return {
            name.lower(): project.name for project in self.projects for name in (project.name, *project.alias)
        }

    def github_name(self, repository: str) -> str | None:
        """`owner/name` where the repository is one of the GitHub that is set up; None where it is any other path or URL."""
        return self.github.name_of(repository) if self.github else None

    def task_caps(self) -> Limits:
        """What the organization allows a task at most: twice the defaults unless `sandbox.caps` says otherwise."""
        wide = Limits(**self.limits.given())
        fixed = ("output_files", "pids")
        doubled = {name: getattr(wide, name) * (1 if name in fixed else 2) for name in Limits.model_fields}
        return Limits(**(doubled | self.sandbox.caps.given()))


def _limits_fit(settings: Settings) -> Iterator[Problem]:
    """The installation does not contradict itself: no project is given more than the caps allow."""
    caps = settings.task_caps()
    for place, project in enumerate(settings.projects):
        limits = project.task_limits(settings)
        for key, names in LIMIT_FIELDS.items():
            if getattr(limits, names) > getattr(caps, names):
                told = f"is more than `sandbox.caps` allows (where it says nothing: twice `limits`); set `sandbox.caps.{key}`"
                yield Problem(("projects", place, "limits", key), told)


def load_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read `codespar.yaml`: `path`, else the file CODESPAR_CONFIG names, else the one in this folder, else the defaults.

    Relative paths in it are relative to its folder. Raises `ConfigError`.
    """
    chosen = path or (Path(environment["CODESPAR_CONFIG"]) if environment.get("CODESPAR_CONFIG") else None)
    if chosen is None:
        chosen = Path("codespar.yaml")
        if not chosen.exists():
            return Settings()
    try:
        text = chosen.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{chosen}: cannot be read: {error.strerror}. `codespar init` writes a commented one."
        ) from error
    settings = load(
        text,
        chosen.name,
        Settings,
        checks=(check_installation, check_policies, check_schedules),
        after=_limits_fit,
        choose=_settings_for,
    )
    folder = chosen.resolve().parent
    bundle = settings.sandbox.ca_bundle
    return settings.evolve(
        data_dir=folder / settings.data_dir.expanduser(),
        sandbox=settings.sandbox.evolve(ca_bundle=folder / bundle.expanduser())
        if bundle
        else settings.sandbox,
        github=settings.github and _keyed(settings.github, folder),
        projects=tuple(
            project.evolve(repository=_located(project.repository, folder, settings.github))
            for project in settings.projects
        ),
    )


def _settings_for(document: Mapping[str, Any]) -> type[Settings]:
    channels = section_for(document)
    if channels is None:
        return Settings
    return create_model("Settings", __base__=Settings, channels=(channels, Field(default=channels())))


def _located(repository: str, folder: Path, github: GithubSettings | None) -> str:
    """A path as an absolute one. Where GitHub is set up, `owner/name` is a repository there, unless a folder has that name."""
    path = folder / Path(repository).expanduser()
    at_github = github is not None and FULL_NAME.fullmatch(repository) and not path.exists()
    return repository if at_github or _URL.match(repository) else str(path)


def _keyed(github: GithubSettings, folder: Path) -> GithubSettings:
    key = github.private_key_file
    return github.evolve(private_key_file=folder / key.expanduser()) if key else github
