"""What Telegram takes, as its Bot API documents it (10.3), and where we stop before that."""

from __future__ import annotations

from codespar.channels.base import Capabilities

TEXT = 4096  # UTF-16 units of a message, entities parsed
CAPTION = 1024  # UTF-16 units under a file, entities parsed
ENTITIES = 100  # of one message; what is more is dropped by Telegram, so that a link would lose its address
CALLBACK_DATA = 64  # bytes behind a button
ROW, BUTTONS = 8, 100  # buttons in a row, and in all
ANSWER = 200  # characters of the answer to a button press

# Ours: Telegram finds entities of its own (web addresses, hashtags) that count too, and says no limit for what is on and behind all
# buttons together, but has one.
PACKED_TEXT = 4000
PACKED_ENTITIES = 80
KEYBOARD_BYTES = 8000
LABEL = 64

CAPABILITIES = Capabilities(
    threads=True,
    edits=True,
    deletes=True,
    buttons=True,
    forms=True,
    files=True,
    direct=True,
    max_text=TEXT,
    text_unit="utf16",
    max_buttons=BUTTONS,
    max_label=LABEL,
    max_command=CALLBACK_DATA - 1,  # a mark stands before the command
    max_upload=50_000_000,
    max_download=20_000_000,
    edit_seconds=3.0,  # a group takes 20 messages and edits a minute
    messages_per_second=1.0,
    overall_per_second=30.0,
    resend="may_double",  # the Bot API has no idempotency key, and a bot cannot read what it has sent
)
