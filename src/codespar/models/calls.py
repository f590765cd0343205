"""What the adapters to language models share: which service and key a setting names, one call with its time and its second try, what a
failed call means to people, what it used.

Keys and texts are never logged, and no vendor's words are repeated in an error: they may repeat what was sent. pydantic-ai takes over a
second to import: that is done in a thread, when a model is first asked.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Generic, Literal, TypeVar
from urllib.parse import urlsplit

import structlog

from codespar.models.base import (
    ModelBroken,
    ModelBusy,
    ModelError,
    ModelNotSet,
    ModelRefused,
    ModelTimedOut,
    ModelUnreachable,
    ModelUse,
)

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from pydantic_ai.exceptions import ModelAPIError
    from pydantic_ai.models import Model
    from pydantic_ai.usage import RunUsage

    from codespar.config import ModelSettings

log = structlog.get_logger(__name__)
OPENAI, OPENAI_KEY = "https://api.openai.com/v1", "OPENAI_API_KEY"
CALLS = 2  # to the model for an answer at most: one that is no answer is asked for once more
AGAIN = 0.3  # seconds until a call that failed at the service or on its way is made once more
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
T = TypeVar("T")
A = TypeVar("A")


class ModelCalls(Generic[A]):
    """Calls to the model that `model.<setting>` names, at the address and with the key that stand beside it.

    `make` gives what asks it, in a thread and once. `seconds` is for one answer, however many calls it takes; `instead` says in an error
    what a person can do besides trying again.
    Raises `ModelNotSet` for a setting that names no model. A missing key is told by `check`, when the model is to be asked.
    """

    def __init__(
        self,
        settings: ModelSettings,
        environment: Mapping[str, str],
        setting: Literal["understanding", "review"],
        make: Callable[[Model], A],
        *,
        seconds: float,
        instead: str,
        on_use: Callable[[ModelUse], None],
    ) -> None:
        named: str | None = getattr(settings, setting)
        base_url: str | None = getattr(settings, f"{setting}_base_url")
        key_name: str | None = getattr(settings, f"{setting}_api_key_env")
        self.model = named or ""
        self.service, _, self._name = self.model.partition(":")
        if self.service not in ("anthropic", "openai") or not self._name:
            told = f"model.{setting} is `{self.model}`, which names no model; write `anthropic:<name>` or `openai:<name>`"
            raise ModelNotSet(told)
        anthropic = self.service == "anthropic"
        self._url = base_url or (settings.base_url if anthropic else OPENAI)
        self._key_name = key_name or (settings.api_key_env if anthropic else OPENAI_KEY)
        self._key = environment.get(self._key_name) or None
        self._setting = setting
        self._make = make
        self._seconds = seconds
        self._instead = instead
        self._on_use = on_use
        self._made: tuple[AsyncClient, A] | None = None
        self._making = asyncio.Lock()

    def check(self) -> None:
        """Raises `ModelNotSet` where there is no key; a service on this machine may be asked without one."""
        if self._key is None and urlsplit(self._url).hostname not in _LOOPBACK:
            told = f"there is no API key for {self.model}: set {self._key_name} where the server starts, and start it again"
            raise ModelNotSet(told)

    async def ready(self) -> A:
        """What asks the model. Loading it is not the model's time."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._load)
            return self._made[1]

    async def close(self) -> None:
        """Let go of connections. The next `ready` makes new ones."""
        made, self._made = self._made, None
        if made is not None:
            await made[0].aclose()

    def _load(self) -> tuple[AsyncClient, A]:
        from httpx2 import AsyncClient, Limits, Timeout

        client = AsyncClient(
            timeout=Timeout(self._seconds, connect=min(5.0, self._seconds)),
            limits=Limits(max_connections=20, max_keepalive_connections=4),
        )  # it follows no redirect, which would take the key along
        return client, self._make(self._model(client))

    def _model(self, client: AsyncClient) -> Model:
        key = self._key or "none"  # a service on this machine may need none; the clients want some text
        if self.service == "anthropic":
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            provider = AnthropicProvider(api_key=key, base_url=self._url, http_client=client)
            return AnthropicModel(self._name, provider=provider)
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel(
            self._name, provider=OpenAIProvider(api_key=key, base_url=self._url, http_client=client)
        )

    async def ask(
        self,
        run: Callable[[RunUsage], Awaitable[T]],
        heard: Callable[[ModelUse], None] = lambda use: None,
    ) -> T:
        """What `run` gives, which counts in the usage it is handed; it is run once more where that may help.

        Raises a `ModelError` for what the service did. What the model said passes: `UnexpectedModelBehavior` and `UsageLimitExceeded`
        are the caller's to judge. `heard` and the maker's `on_use` hear what was used, in each case.
        """
        from pydantic_ai.exceptions import ModelAPIError
        from pydantic_ai.usage import RunUsage

        usage = RunUsage()
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    return await run(usage)
                except ModelAPIError as error:
                    if not _may_pass(error):
                        raise
                await asyncio.sleep(AGAIN)
                return await run(usage)
        except TimeoutError as error:
            told = f"{self.model} did not answer within {self._seconds:g} s; try again, or {self._instead}"
            raise ModelTimedOut(told) from error
        except ModelAPIError as error:
            raise self._refusal(
                error
            ) from None  # the vendor's own words may repeat what was sent, even the key
        finally:
            self._report(usage, heard)

    def _report(self, usage: RunUsage, heard: Callable[[ModelUse], None]) -> None:
        if not (usage.requests or usage.input_tokens or usage.output_tokens):
            return
        cost = None if usage.cost is None else round(usage.cost * 1_000_000)
        use = ModelUse(
            model=self.model,
            calls=usage.requests,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_micros=cost,
        )
        heard(use)
        self._on_use(use)

    def _refusal(self, error: ModelAPIError) -> ModelError:
        """What a failed call means to whoever has to do something about it."""
        from pydantic_ai import exceptions as of

        status = f" ({error.status_code})" if isinstance(error, of.ModelHTTPError) else ""
        log.info("model.failed", model=self.model, kind=type(error).__name__, status=status.strip(" ()"))
        match error:
            case of.ModelAuthenticationError():
                return ModelRefused(
                    f"{self.model}: the service refuses the API key{status}; set a valid one and start the server again"
                )
            case of.ModelNotFoundError():
                return ModelRefused(
                    f"{self.model}: the service at {self._url} does not know this model{status}; see model.{self._setting}"
                )
            case of.ModelContextWindowExceededError():
                return ModelRefused(
                    f"{self.model}: this is longer than the model can read{status}; set model.{self._setting} to one that reads more"
                )
            case of.ModelQuotaExceededError():
                return ModelBusy(
                    f"{self.model}: the account's quota is spent{status}; see the service's billing page"
                )
            case of.ModelRateLimitError():
                return ModelBusy(
                    f"{self.model}: too many requests{status}; try again in a moment", error.retry_after
                )
            case of.ModelUnavailableError():
                return ModelBusy(
                    f"{self.model}: the service is overloaded{status}; try again in a moment",
                    error.retry_after,
                )
            case of.ModelRequestRejectedError():
                return ModelRefused(
                    f"{self.model}: the service refuses the request{status}; does this model support tools?"
                )
            case of.ModelTimeoutError() | of.ModelRequestTimeout():
                return ModelTimedOut(f"{self.model} did not answer within {self._seconds:g} s; try again")
            case of.ModelConnectionError():
                return ModelUnreachable(
                    f"{self.model}: nobody answers at {self._url}; check model.{self._setting}_base_url and the network"
                )
            case _:
                return ModelBroken(f"{self.model}: the service failed{status}; try again, or {self._instead}")


def _may_pass(error: ModelAPIError) -> bool:
    """Whether the same call may do better at once: not where we are told to wait, nor where it is the call that is wrong."""
    from pydantic_ai import exceptions as of

    if isinstance(error, of.ModelTimeoutError):
        return False
    return isinstance(error, (of.ModelConnectionError, of.ModelServerError))


def visible(text: str) -> str:
    """Without the characters that a person who reads it would not see."""
    joiners = "\u200c\u200d"
    return "".join(
        char
        for char in text
        if char.isspace()
        or char in joiners
        or not (
            unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co")
            or "\ufe00" <= char <= "\ufe0d"
            or "\U000e0100" <= char <= "\U000e01ef"
        )
    )
