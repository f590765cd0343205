"""The workspaces that have the app: who we are in each, with which token, kept in files that only this user can read.

A workspace is known by its team id; an installation for a whole organization by the organization's.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from codespar.channels.slack.normalize import Us
from codespar.config.private import write_private

log = structlog.get_logger(__name__)

_ID = re.compile(r"[A-Z][A-Z0-9]{1,30}", re.ASCII)


@dataclass(frozen=True)
class Workspace:
    """One installation of the app."""

    team: str
    name: str
    bot_user: str
    token: str = field(repr=False)

    @property
    def us(self) -> Us:
        return Us(team=self.team, bot_user=self.bot_user)


class Workspaces:
    """All installations. Reading and writing files blocks: call `load`, `keep` and `forget` from a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "workspaces"
        self._known: dict[str, Workspace] = {}

    def load(self) -> None:
        """Read what was installed before. A file that is no installation is left out, and said so."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.json")):
            try:
                found = Workspace(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                log.warning("slack.installation_unreadable", file=path.name, error=type(error).__name__)
                continue
            self._known.setdefault(found.team, found)

    def add(self, workspace: Workspace) -> None:
        """Know a workspace until the end of the process: its token comes from the environment."""
        self._known[workspace.team] = workspace

    def keep(self, workspace: Workspace) -> None:
        """Know a workspace for good."""
        write_private(self._path(workspace.team), json.dumps(asdict(workspace)))
        self._known[workspace.team] = workspace

    def forget(self, team: str) -> None:
        """The app was taken away from a workspace."""
        self._known.pop(team, None)
        self._path(team).unlink(missing_ok=True)

    def get(self, team: str) -> Workspace | None:
        return self._known.get(team)

    def only(self) -> Workspace | None:
        """The one workspace there is, or None where there are none or several."""
        return next(iter(self._known.values())) if len(self._known) == 1 else None

    def _path(self, team: str) -> Path:
        if not _ID.fullmatch(team):
            raise ValueError(f"{team!r} is no id of a Slack workspace")
        return self._folder / f"{team}.json"
