"""Every chat platform of the product, played."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.platforms.base import FakePlatform
from support.platforms.discord import FakeDiscord
from support.platforms.slack import FakeSlack
from support.platforms.telegram import FakeTelegram
from support.platforms.whatsapp import FakeWhatsapp


def whatsapp() -> FakeWhatsapp:
    """With the time of now: the adapter's 24-hour window goes by the real clock."""
    fake = FakeWhatsapp()
    fake.now = int(time.time())
    return fake


FAKES: dict[str, Callable[[], FakePlatform]] = {
    "slack": FakeSlack,
    "discord": FakeDiscord,
    "telegram": FakeTelegram,
    "whatsapp": whatsapp,
}
