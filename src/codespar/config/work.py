"""The settings of what agents do besides coding tasks: reviews, and what comes by the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from codespar.config.units import Duration
from codespar.config.yaml import Problem
from codespar.domain.commands import NotUnderstood, parse
from codespar.domain.reviews import Severity
from codespar.domain.schedules import check_cron
from codespar.domain.settings import Filled, Section, WebAddress

ApproveUpTo = Literal["none", "low", "medium"]


def _cron(value: str) -> str:
    check_cron(value)
    return value


def _zone(value: str) -> str:
    from codespar.config.chat import known_zone  # which imports the platforms

    return known_zone(value)


class ReviewSettings(Section):
    """How pull requests are reviewed. What a repository's own file says can only make it stricter."""

    approve_up_to: ApproveUpTo = Field(
        default="low",
        description="the highest risk that is approved without a person, where autonomy allows it: none, low or medium",
    )
    approve_own: bool = Field(
        default=False, strict=True, description="whether its own agents' pull requests may be approved, too"
    )
    approve_without_checks: bool = Field(
        default=False,
        strict=True,
        description="whether one may be approved on whose commit no check ever ran",
    )
    request_changes_from: Severity = Field(
        default=Severity.HIGH,
        description="the severity from which a finding requests changes: info, low, medium, high or critical",
    )
    comments: int = Field(
        default=10, ge=1, le=50, strict=True, description="inline comments of one review; the rest is folded"
    )
    budget: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="US dollars for the model, a review"
    )
    protected_paths: tuple[Filled, ...] = Field(
        default=(), description="gitignore-style patterns of what no agent approves a change to"
    )
    advisories: WebAddress | None = Field(
        default=None,
        description="a service with the interface of OSV (https://api.osv.dev) that is asked about changed dependencies; left out: none",
    )


class AnalyserSection(Section):
    """A program of the repository's environment that writes SARIF."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$", description="its name in findings")
    command: Filled = Field(
        description="run by `sh -c` in the root of the work tree; it writes SARIF 2.1.0 to the file $SARIF; $FILES lists the changed files"
    )
    within: Duration = Field(default=120.0, description="after which it is ended")
    endings: tuple[Filled, ...] = Field(
        default=(),
        description="file name endings such as .py, without which it is left out; none: it always runs",
    )


class RepositoryReview(Section):
    """`review` of `.codespar.yaml`."""

    approve_up_to: ApproveUpTo | None = Field(
        default=None, description="as in codespar.yaml; the stricter of both counts"
    )
    request_changes_from: Severity | None = Field(
        default=None, description="as in codespar.yaml; the stricter of both counts"
    )
    protected_paths: tuple[Filled, ...] = Field(
        default=(), description="gitignore-style patterns of what no agent approves a change to"
    )
    ignore: tuple[Filled, ...] = Field(
        default=(),
        description="gitignore-style patterns of files about which nothing is said, such as fixtures",
    )
    analysers: tuple[AnalyserSection, ...] = Field(
        default=(), description="programs that look at changes beside the built-in ones"
    )
    without: tuple[Filled, ...] = Field(
        default=(), description="built-in analysers to leave out: ruff, bandit, semgrep, detect-secrets"
    )
    coverage: Filled | None = Field(
        default=None,
        description="the name of the artefacts, or a glob such as coverage*, in which builds leave their coverage report; left out: none is looked for",
    )


class ScheduleSettings(Section):
    """A command that comes by the clock."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,60}$", description="its own, lower-case letters, digits and dashes"
    )
    cron: Annotated[str, AfterValidator(_cron)] = Field(
        description="when, as five fields: minute, hour, day of month, month, day of week"
    )
    time_zone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None, description="the zone of those times; left out: that of `notifications`"
    )
    run: Filled = Field(
        description="the command, such as `status build` or `prs stale`; it is given as anybody would give it"
    )
    by: Filled | None = Field(
        default=None,
        description="the id of the person with whose rights it runs; left out: the agent's own, which are those of its autonomy level",
    )


def check_schedules(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Each schedule has a name of its own, gives a command that exists in its own project, and somebody who is known."""
    aliases = _aliases(document)
    people = {
        str(one.get("id") or str(one.get("name", "")).lower().replace(" ", "-"))
        for one in _dicts(document.get("people"))
    }
    for place, project in enumerate(_dicts(document.get("projects"))):
        names: set[str] = set()
        for row, schedule in enumerate(_dicts(project.get("schedules"))):
            path = ("projects", place, "schedules", row)
            name, run, by = schedule.get("name"), schedule.get("run"), schedule.get("by")
            if isinstance(name, str) and name in names:
                yield Problem((*path, "name"), f"another schedule of this project is called `{name}` already")
            names.add(str(name))
            if isinstance(run, str) and run.strip():
                command = parse(run, aliases=aliases)
                if isinstance(command, NotUnderstood):
                    yield Problem((*path, "run"), f"is no command: {command.why}")
                elif command.project not in (None, project.get("name")):
                    yield Problem(
                        (*path, "run"), f"is given in this project alone; put it under {command.project}"
                    )
                elif command.name in ("approve", "reject", "kill", "resume", "register", "invite"):
                    yield Problem((*path, "run"), f"`{command.name}` is for people alone")
            if isinstance(by, str) and by not in people:
                known = ", ".join(sorted(people)) or "nobody yet"
                yield Problem((*path, "by"), f"is nobody's id; `people` has {known}")


def _aliases(document: Mapping[str, Any]) -> dict[str, str]:
    """What `Settings.aliases` will be, from a document that may have faults."""
    found: dict[str, str] = {}
    for project in _dicts(document.get("projects")):
        name, others = project.get("name"), project.get("alias")
        if isinstance(name, str):
            named = cast("list[Any]", others) if isinstance(others, list) else []
            found |= {one.lower(): name for one in (name, *named) if isinstance(one, str)}
    return found


def _dicts(value: Any) -> list[dict[str, Any]]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
