"""A repository's webhook at GitHub: registered only when a person asks for it, once for each address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from codespar.forges.base import AccessLost, Gone
from codespar.forges.github.hosted import Hosted


class Hooks(Hosted):
    """The part of the GitHub forge that registers its webhook."""

    async def ensure_webhook(self, url: str, secret: str, events: Sequence[str]) -> str:
        """Have GitHub send these events to `url`, signed with `secret`. Returns what was done. Two requests.

        A webhook of that address is brought up to date, and no second one made. Raises `AccessLost` where we may not (a token needs the
        permission *Webhooks: write*; an App has a webhook of its own).
        """
        config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
        wanted: dict[str, Any] = {"active": True, "events": sorted(events), "config": config}
        try:
            hooks = await self._client.pages(self._at("/hooks"))
        except Gone as error:  # what GitHub says where we may not even see them
            raise AccessLost(
                f"The webhooks of {self.repository_name} cannot be seen: the token needs the permission Webhooks: write, and its owner must "
                "administer the repository. A GitHub App has a webhook of its own, in its settings."
            ) from error
        for hook in hooks:
            known: Any = hook.get("config")
            if isinstance(known, dict) and cast("dict[str, Any]", known).get("url") == url:
                await self._client.send("PATCH", self._at(f"/hooks/{hook['id']}"), wanted, repeatable=True)
                return f"the webhook of {self.repository_name} to {url} is up to date"
        await self._client.send("POST", self._at("/hooks"), {"name": "web"} | wanted)
        return f"{self.repository_name} sends its webhooks to {url} now"
