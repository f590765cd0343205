"""What Slack takes, in one place: from its documentation, and where that is silent, on the safe side of what people measured."""

from __future__ import annotations

from codespar.channels.base import Capabilities

HEADER = 150  # characters of a header block
BUTTON_TEXT = 75
BUTTON_VALUE = 2000
BUTTONS = 25  # in one actions block; one is enough for us
CONTEXT = 2000  # characters of a context element
RUN = 2900  # UTF-16 units of one piece of text; text objects end at 3,000
URL = 3000
BLOCKS = 50
BLOCK_BYTES = 10_000  # of all blocks as JSON: `msg_blocks_too_long` was met from some 11,300 characters on
FALLBACK = 3000  # characters of `text` beside blocks
TEXT = 3500  # characters of `text` alone, escaped; from 4,000 on `msg_too_long` is met
FOLD = 12_000  # characters from which a text goes into a file
PLAIN = 40_000  # characters from which even the plain form uses files
LABEL = 150  # characters of what a form asks, above its line
TITLE = 24  # of a form
ANSWER = 3000  # of the line in a form
METADATA = 3000  # of a form's private metadata
BODY = 2_000_000  # bytes of a request that we read

CAPABILITIES = Capabilities(
    threads=True,
    edits=True,
    deletes=True,
    buttons=True,
    forms=True,
    files=True,
    markdown=False,
    direct=True,
    max_text=RUN,
    text_unit="utf16",
    max_buttons=BUTTONS,
    max_label=BUTTON_TEXT,
    max_command=BUTTON_VALUE - 100,
    max_upload=1_000_000_000,
    edit_seconds=1.2,
    messages_per_second=1.0,
    ack_seconds=3.0,
    resend="safe",
)
