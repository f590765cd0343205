"""`.codespar.yaml`: what a repository says of itself. It counts only as it stands on the default branch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from codespar.config.limits import LimitSettings
from codespar.config.rules import check_repository
from codespar.config.work import RepositoryReview
from codespar.config.yaml import load
from codespar.domain.base import Value
from codespar.domain.settings import Filled, Section, variable_name
from codespar.sandbox.base import Analyser, EnvironmentSetup

_NOT_YET = "is not available in this release; take it out"
_RESERVED: dict[str, str] = dict.fromkeys(("deploy", "health"), _NOT_YET)


def _inside(value: str) -> str:
    if value.startswith(("/", "~")) or ".." in value.split("/") or "\\" in value or not value:
        raise ValueError("must be a path inside the repository, such as `requirements.txt`")
    return value


Inside = Annotated[str, AfterValidator(_inside)]


class EnvironmentSection(Section):
    image: str | None = Field(
        default=None, min_length=1, description="a ready image instead of the standard one"
    )
    dockerfile: Inside | None = Field(
        default=None, description="a Dockerfile of the repository; it can copy the files that `inputs` names"
    )
    setup: tuple[Filled, ...] = Field(
        default=(), description="shell commands, run as root with network while the image is built"
    )
    inputs: tuple[Inside, ...] = Field(
        default=(), description="files that `setup` reads, such as lock files; a change builds anew"
    )
    variables: dict[Annotated[str, AfterValidator(variable_name)], str] = Field(
        default={}, description="environment variables of the task; never a secret"
    )

    @model_validator(mode="after")
    def _one_source(self) -> EnvironmentSection:
        if self.image and self.dockerfile:
            raise ValueError("`image` and `dockerfile` exclude each other; keep one")
        return self


class RepositoryFile(Section):
    """`.codespar.yaml` as it is written."""

    environment: EnvironmentSection = Field(default=EnvironmentSection(), description="where its tasks run")
    test: str | None = Field(
        default=None,
        min_length=1,
        description="the test command, run by `sh -c` in the root of the work tree",
    )
    limits: LimitSettings = Field(
        default=LimitSettings(), description="of its tasks, within what the installation allows"
    )
    blocked_paths: tuple[Filled, ...] = Field(
        default=(), description="gitignore-style patterns that no change may touch"
    )
    blocked_commands: tuple[Filled, ...] = Field(
        default=(), description="beginnings of commands the agent may not run"
    )
    review: RepositoryReview = Field(
        default=RepositoryReview(), description="how its pull requests are reviewed"
    )


class RepositoryConfig(Value):
    """What a repository says of itself, read from its default branch only. `limits` holds the fields of `Limits` that it sets."""

    environment: EnvironmentSetup = EnvironmentSetup()
    test: str | None = None
    limits: dict[str, Any] = Field(default={})
    blocked_paths: tuple[str, ...] = ()
    blocked_commands: tuple[str, ...] = ()
    review: RepositoryReview = RepositoryReview()

    @property
    def analysers(self) -> tuple[Analyser, ...]:
        """The repository's own analysers, as a sandbox takes them."""
        return tuple(
            Analyser(name=one.name, command=one.command, seconds=one.within, languages=one.endings)
            for one in self.review.analysers
        )


def parse_repository_config(text: bytes | None, origin: str) -> RepositoryConfig:
    """`.codespar.yaml` of a commit, or the defaults where there is none. `origin` names it in errors. Raises `ConfigError`."""
    if text is None:
        return RepositoryConfig()
    file = load(text, origin, RepositoryFile, checks=(check_repository,), reserved=_RESERVED)
    return RepositoryConfig(
        environment=EnvironmentSetup(**dict(file.environment)),
        test=file.test,
        limits=file.limits.given(),
        blocked_paths=file.blocked_paths,
        blocked_commands=file.blocked_commands,
        review=file.review,
    )
