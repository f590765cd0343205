"""GitHub's example webhooks and its list of events, as the packages of npm hold them. No one here wrote them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from support.github import description, webhook_examples


@cache
def examples() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Event and payload of every example of api.github.com. Whoever changes one takes a copy first."""
    return tuple((kind["name"], payload) for kind in webhook_examples() for payload in kind["examples"])


def example(event: str, action: str = "", place: int = 0) -> dict[str, Any]:
    """A copy of one example: the one at `place` among those of this event and action."""
    found = [payload for name, payload in examples() if (name, payload.get("action", "")) == (event, action)]
    return json.loads(json.dumps(found[place]))


@cache
def published() -> tuple[tuple[str, str], ...]:
    """Every event and action that GitHub's API description lists; the action is empty where the event has none."""
    found: list[tuple[str, str]] = []
    for hook in description()["x-webhooks"].values():
        event = hook["post"]["x-github"]["subcategory"].replace("-", "_")
        action = hook["post"]["operationId"].partition("/")[2].replace("-", "_")
        found.append((event, action))
    return tuple(found)
