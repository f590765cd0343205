"""Which project belongs to which repository of a code host, by its name and by the id that a rename does not change."""

from __future__ import annotations

from pathlib import Path

from codespar.config import ProjectSettings, Settings
from codespar.domain.happenings import InstallationChanged, News, RepositoryChanged
from codespar.forges.github.settings import FULL_NAME


def is_full_name(repository: str) -> bool:
    """Whether it reads as `owner/name` and is no folder here."""
    return FULL_NAME.fullmatch(repository) is not None and not Path(repository).exists()


class Linked:
    """The linked projects. `ids` are the host's of their repositories, as far as they are known."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.projects: dict[str, ProjectSettings] = {}
        self.ids: dict[str, int] = {}

    def name(self, project: str) -> str | None:
        """The project's repository as its settings call it, where it is at GitHub."""
        return self.settings.github_name(self.projects[project].repository)

    def of(self, repository: str, id: int | None = None) -> list[str]:
        """The projects of a repository. One whose id is known is known by that alone: its name may have gone to another."""
        wanted = repository.lower()
        return [
            project
            for project in self.projects
            if (name := self.name(project))
            and (self.ids[project] == id if id and project in self.ids else name.lower() == wanted)
        ]

    def concerned(self, repository: str, id: int | None, news: tuple[News, ...]) -> list[str]:
        """The projects that a delivery is about: of its repository, or of every repository that an installation's change names."""
        found = self.of(repository, id) if repository else []
        for one in news:
            if isinstance(one.what, RepositoryChanged) and one.what.action in ("renamed", "transferred"):
                unknown = [project for project in self.of(one.what.old) if project not in self.ids]
                found += unknown
            if isinstance(one.what, InstallationChanged):
                owner, named = (
                    one.what.account.lower() + "/",
                    {each.lower() for each in one.what.repositories},
                )
                found += [
                    project
                    for project in self.projects
                    if (name := (self.name(project) or "").lower())
                    and (name in named if named else name.startswith(owner))
                ]
        return list(dict.fromkeys(found))

    def conversation(self, project: str) -> str:
        """What its repository is called as a conversation: one name, however the settings of several projects write it."""
        name = self.name(project) or ""
        return next((self.name(other) or name for other in self.of(name)), name)
