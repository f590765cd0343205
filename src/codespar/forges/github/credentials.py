"""Whom we are to GitHub: an App's installation in one repository, or a fine-grained token.

Keys and tokens stay in memory: they are in no log, no error and no `repr`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from codespar.forges.base import AccessLost, ForgeError, ForgeUnavailable, Gone
from codespar.forges.github.client import GithubClient
from codespar.forges.github.errors import Unprocessable, shown
from codespar.forges.github.settings import PRIVATE_KEY, GithubSettings
from codespar.forges.github.transport import Credentials

# Before a token ends, so that whatever begins with it can also be finished with it.
RENEWED_BEFORE = timedelta(minutes=5)
_STILL_GOOD = timedelta(minutes=1)
_SKEW = timedelta(seconds=60)  # GitHub refuses a JWT that seems to be from the future
_JWT_LIFE = timedelta(minutes=9)  # GitHub takes no more than ten
_REFUSED_FOR = timedelta(minutes=5)


class TokenCredentials:
    """A fine-grained token. `variable` is where it came from, for people to read."""

    def __init__(self, token: str, *, variable: str, clock: Callable[[], datetime]) -> None:
        self._token = token
        self._variable = variable
        self._clock = clock
        self._refused: datetime | None = None

    async def token(self) -> str:
        """The token. After GitHub refused it, `AccessLost` for some minutes: asking again at once is no use, and a host in trouble may
        refuse a good one."""
        if self._refused is not None and self._clock() - self._refused < _REFUSED_FOR:
            raise AccessLost(
                f"GitHub refuses the token in {self._variable}: it was revoked or has expired. "
                f"Make a new fine-grained token, set {self._variable} to it and start again."
            )
        return self._token

    def spoiled(self, token: str) -> None:
        self._refused = self._clock()

    async def app_jwt(self) -> str | None:
        return None


class AppKey:
    """An App as itself, by a JWT signed with its private key: what it needs to find its installations, and no repository can be read with."""

    def __init__(self, app_id: int, private_key: str, *, source: str, clock: Callable[[], datetime]) -> None:
        self.app_id = app_id
        self.source = source  # of the key, for people to read
        self._key = private_key
        self._clock = clock
        self._jwt: tuple[str, datetime] | None = None

    async def token(self) -> str:
        now = self._clock()
        if self._jwt is None or self._jwt[1] - now < _STILL_GOOD:
            self._jwt = (self._sign(now), now + _JWT_LIFE)
        return self._jwt[0]

    def spoiled(self, token: str) -> None:
        self._jwt = None

    async def app_jwt(self) -> str | None:
        return await self.token()

    def _sign(self, now: datetime) -> str:
        import jwt

        claims = {
            "iat": int((now - _SKEW).timestamp()),
            "exp": int((now + _JWT_LIFE).timestamp()),
            "iss": str(self.app_id),
        }
        try:
            return jwt.encode(claims, self._key, algorithm="RS256")
        except (ValueError, TypeError, jwt.PyJWTError):
            pass  # its text might quote the key
        raise AccessLost(
            f"What is in {self.source} is not the private key of a GitHub App: it must be the whole PEM file, "
            "from -----BEGIN RSA PRIVATE KEY----- to the end line."
        )


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires_at: datetime


class AppCredentials:
    """An App's installation, with tokens for one repository: they end after an hour and are renewed before that.

    `client_factory` makes a client that shows the given credentials; it is made for a renewal and closed after it.
    """

    def __init__(
        self,
        key: AppKey,
        repository: str,
        *,
        client_factory: Callable[[Credentials], GithubClient],
        clock: Callable[[], datetime],
    ) -> None:
        self._key = key
        self._repository = repository
        self._client_factory = client_factory
        self._clock = clock
        self._installation: int | None = None
        self._id: int | None = None  # of the repository, by which it is known when it is renamed
        self._current: _Token | None = None
        self._renewing = asyncio.Lock()

    async def token(self) -> str:
        """The installation's token, the same for all who ask at once.

        Raises `AccessLost` when the App is not installed, its installation is suspended or its key is refused, and `ForgeUnavailable`.
        """
        if (current := self._valid_for(RENEWED_BEFORE)) is not None:
            return current
        async with self._renewing:
            if (current := self._valid_for(RENEWED_BEFORE)) is not None:
                return current
            try:
                self._current = await self._renew()
            except ForgeUnavailable:
                if (current := self._valid_for(_STILL_GOOD)) is not None:
                    return current
                raise
            return self._current.text

    def spoiled(self, token: str) -> None:
        if self._current is not None and self._current.text == token:
            self._current = None

    async def app_jwt(self) -> str | None:
        return await self._key.token()

    def _valid_for(self, time: timedelta) -> str | None:
        token = self._current
        return token.text if token is not None and token.expires_at - self._clock() > time else None

    async def _renew(self) -> _Token:
        client = self._client_factory(self._key)
        try:
            known = self._installation is not None
            installation = self._installation or await self._find(client)
            try:
                answer = await self._ask(client, installation)
            except (Gone, Unprocessable):
                if not known:
                    raise
                # The App was installed anew meanwhile, or the repository went to another account.
                answer = await self._ask(client, await self._find(client))
        except Unprocessable as error:
            raise AccessLost(
                f"The GitHub App {self._key.app_id} is installed, but not for {self._repository}: {error.message or error} "
                "Add the repository in the installation's settings."
            ) from error
        except Gone as error:
            raise await self._not_installed(client) from error
        except AccessLost as error:
            raise self._refused(error) from error
        finally:
            await client.close()
        return self._read(answer)

    async def _find(self, client: GithubClient) -> int:
        self._installation = None
        answer = await client.get(f"/repos/{self._repository}/installation")
        match answer:
            case {"suspended_at": str(since)}:
                raise AccessLost(f"This installation has been suspended since {shown(since)}")
            case {"id": int(id)}:
                self._installation = id
                return id
            case _:
                raise ForgeUnavailable(
                    f"GitHub describes the installation in {self._repository} without its id. Try again later."
                )

    async def _ask(self, client: GithubClient, installation: int) -> Any:
        name = self._repository.partition("/")[2]
        for_one = {"repositories": [name]} if self._id is None else {"repository_ids": [self._id]}
        # Harmless to ask twice: a token nobody uses ends by itself.
        return await client.send(
            "POST", f"/app/installations/{installation}/access_tokens", for_one, repeatable=True
        )

    def _read(self, answer: Any) -> _Token:
        match answer:
            case {"repositories": [{"id": int(id)}]}:
                self._id = id
            case _:
                pass
        match answer:
            case {"token": str(text), "expires_at": str(end)}:
                try:
                    expires_at = datetime.fromisoformat(end)
                except ValueError:
                    expires_at = None
                if expires_at is not None and expires_at.tzinfo is not None:
                    return _Token(text, expires_at)
            case _:
                pass
        raise ForgeUnavailable("GitHub made a token without saying when it ends. Try again later.")

    async def _not_installed(self, client: GithubClient) -> AccessLost:
        try:
            app = await client.get("/app")
        except AccessLost as error:
            return self._refused(error)
        except ForgeError:
            app = None
        address = app.get("html_url") if isinstance(app, dict) else None
        where = f"{shown(address)}/installations/new" if address else "the App's page, under “Install App”"
        return AccessLost(f"The App is not installed on {self._repository}: install it at {where}")

    def _refused(self, error: AccessLost) -> AccessLost:
        text = str(error)
        if "suspended" in text.lower():
            return AccessLost(
                f"The installation of the GitHub App in {self._repository} is suspended: an owner of the account "
                f"can end that under Settings → GitHub Apps. GitHub says: {text}"
            )
        if "(401)" in text:
            return AccessLost(
                f"GitHub does not know the App {self._key.app_id} by the key in {self._key.source}: check that the id and the key are "
                f"of the same App, and that this machine's clock is right. GitHub says: {text}"
            )
        return error


def make_credentials(
    settings: GithubSettings,
    environment: Mapping[str, str],
    repository: str,
    *,
    client_factory: Callable[[Credentials], GithubClient],
    clock: Callable[[], datetime],
) -> AppCredentials | TokenCredentials:
    """The credentials that the settings name, for the repository `owner/name`. Raises `AccessLost` that says which variable to set."""
    if settings.app_id is not None:
        text, source = _private_key(settings, environment, repository)
        key = AppKey(settings.app_id, text, source=source, clock=clock)
        return AppCredentials(key, repository, client_factory=client_factory, clock=clock)
    token = environment.get(settings.token_env, "").strip()
    if not token:
        raise AccessLost(
            f"There are no credentials for {repository}: set {settings.token_env} to a fine-grained token for it, "
            "or set app_id in the settings of GitHub to act as a GitHub App."
        )
    return TokenCredentials(token, variable=settings.token_env, clock=clock)


def _private_key(
    settings: GithubSettings, environment: Mapping[str, str], repository: str
) -> tuple[str, str]:
    """The App's key, and where it came from."""
    if settings.private_key_file is not None:
        path = settings.private_key_file
        try:
            return path.read_text(encoding="ascii"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a PEM file"
            raise AccessLost(
                f"The private key of the GitHub App for {repository} cannot be read from {path}: {reason}. Correct private_key_file."
            ) from error
    variable = settings.private_key_env or PRIVATE_KEY
    text = environment.get(variable, "").strip()
    if not text:
        raise AccessLost(
            f"There is no private key for the GitHub App {settings.app_id}, which acts for {repository}: "
            f"set {variable} to the contents of its PEM file, or private_key_file to its path."
        )
    return text.replace("\\n", "\n"), variable  # many env files hold a key on one line
