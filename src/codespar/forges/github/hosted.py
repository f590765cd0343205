"""What every part of the GitHub forge stands on: the repository's git side, the line to GitHub's API, and who we are there.

Git gets the token for one command at a time and keeps it nowhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

from codespar.forges.base import ForgeError, Gone, PullRequest, PullRequestNotFound
from codespar.forges.github import values
from codespar.forges.github.client import GithubClient
from codespar.forges.github.gitauth import git_environment
from codespar.forges.github.marks import mark_of
from codespar.forges.github.transport import Credentials
from codespar.forges.mirror import Mirror

API = "https://api.github.com"
_REMEMBERED = 500
K = TypeVar("K")
V = TypeVar("V")


def repository_url(api_url: str, repository: str) -> str:
    """Where git finds `owner/name` of the GitHub whose API is at `api_url`.

    github.com and its data residency have the API at a host `api.…` beside their own; an Enterprise Server has it at `/api/v3` of its own.
    """
    parts = urlsplit(api_url)
    host = parts.netloc.removeprefix("api.")
    return f"{parts.scheme}://{host}/{repository}.git"


class Recent(OrderedDict[K, V]):
    """The newest of what is put in: it saves a question to the host, and is nothing to rely on."""

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)


class Hosted(Mirror):
    """A repository at GitHub. `bot` is our own login there; it is asked once where it is not given."""

    def __init__(
        self,
        folder: Path,
        repository: str,
        client: GithubClient,
        credentials: Credentials,
        *,
        git_url: str | None = None,
        api_url: str = API,
        bot: str = "",
        clock: Callable[[], datetime],
    ) -> None:
        self._git_url = git_url or repository_url(api_url, repository)
        super().__init__(folder, self._git_url, self._lent)
        self._repository = repository
        self._client = client
        self._credentials = credentials
        self._bot = bot
        self._clock = clock
        self._marks: Recent[str, str] = Recent()  # of our own comments, by their ids
        # (commit, check) → (id of the check run, what it says), as far as this process said it
        self._said: Recent[tuple[str, str], tuple[str, str]] = Recent()

    @property
    def repository_name(self) -> str:
        return self._repository

    async def _lent(self) -> Mapping[str, str]:
        return git_environment(await self._client.token(), self._git_url)

    def _at(self, tail: str) -> str:
        return f"/repos/{self._repository}{tail}"

    async def me(self) -> str:
        """Our own login. One request, once."""
        if not self._bot:
            if await self._credentials.app_jwt() is None:
                told = await self._client.get("/user")
                login = cast(dict[str, Any], told).get("login") if isinstance(told, dict) else None
            else:  # an installation may not ask for `/user`
                viewer: Any = (await self._client.graphql("query { viewer { login } }", {})).get("viewer")
                login = cast(dict[str, Any], viewer).get("login") if isinstance(viewer, dict) else None
                login = f"{str(login).removesuffix('[bot]')}[bot]" if login else None
            if not login:
                raise ForgeError("GitHub does not say who we are. Check api_url in the settings of GitHub.")
            self._bot = str(login)
        return self._bot

    async def _is_ours(self, item: Mapping[str, Any]) -> bool:
        """Whether a comment or review is our own."""
        user: Any = item.get("user")
        login = cast(dict[str, Any], user).get("login") if isinstance(user, dict) else None
        return isinstance(login, str) and login.casefold() == (await self.me()).casefold()

    async def knows(self, commit: str) -> bool:
        return (self.full / "HEAD").exists() and await super().knows(commit)

    def _remember(self, id: str, body: object) -> str:
        self._marks[id] = mark_of(body)
        return id

    async def _pull(self, number: int) -> tuple[PullRequest, values.PullData]:
        """One pull request as GitHub's API has it, without its files. Raises `PullRequestNotFound`."""
        try:
            data = values.PullData.model_validate(await self._client.get(self._at(f"/pulls/{number}")))
        except Gone as error:
            raise PullRequestNotFound(f"there is no pull request #{number} in {self._repository}") from error
        return values.pull_of(data, self._clock()), data

    async def fetch_pull(self, number: int) -> PullRequest:
        """One request, and git for what is not here yet. The head of a pull request whose branch or fork was deleted is here all the same:
        GitHub keeps it under `refs/pull/<n>/head`."""
        pull, _ = await self._pull(number)
        return await self._brought(pull)

    async def _brought(self, pull: PullRequest) -> PullRequest:
        """With its commits here, its merge base and its files. Raises `Gone`."""
        if not (self.full / "HEAD").exists():
            await self.sync()
        head, base = pull.head_commit, pull.base_commit
        if not await self.knows(head):
            found = await self.fetch(f"refs/pull/{pull.number}/head", f"refs/codespar/pull/{pull.number}")
            if found is None and not pull.fork:
                found = await self.fetch_branch(pull.branch)
            if found is None:
                await self.sync()  # a host that cannot be reached raises here
                raise Gone(f"the commits of PR #{pull.number} are not at {self._repository} any more")
            if not await self.knows(head):
                head = found  # it was pushed to between the two questions
        if not await self.knows(base):
            branch, tip = await self.sync()
            if branch != pull.base_branch:
                tip = await self.fetch_branch(pull.base_branch) or tip
            if not await self.knows(base):
                base = tip
        base = await self.merge_base(base, head) or base
        files = tuple(await self.changes(base, head))
        return pull.evolve(head_commit=head, base_commit=base, files=files)


def quoted(name: str) -> str:
    """A branch or a reference as one piece of a path."""
    return quote(name, safe="")
