"""What Discord takes, as documented: lengths in UTF-16 code units (the stricter of the two ways it may count), counts and sizes."""

from __future__ import annotations

from codespar.channels.base import Capabilities

CONTENT = 2000
EMBEDS = 10
EMBED_TOTAL = 6000  # title, description, fields, footer and author of all embeds of a message
EMBED_TITLE = 256
EMBED_DESCRIPTION = 4096
EMBED_FIELDS = 25
FIELD_NAME = 256
FIELD_VALUE = 1024
FOOTER = 2048
ROWS = 5
ROW_BUTTONS = 5
BUTTONS = ROWS * ROW_BUTTONS
LABEL = 80
CUSTOM_ID = 100
FILES = 10
FILE_BYTES = 10_000_000  # of one file, and of all files of one message
THREAD_NAME = 100
NONCE = 25
MODAL_TITLE = 45
INPUT_LABEL = 45
INPUT_PLACEHOLDER = 100
ANSWER = 1000  # characters a person may answer in a form; Discord would take 4,000
OPTION = 2000  # characters of the slash command's text; Discord would take 6,000

CAPABILITIES = Capabilities(
    threads=True,
    edits=True,
    deletes=True,
    buttons=True,
    forms=True,
    files=True,
    markdown=True,
    direct=True,
    max_text=CONTENT,
    text_unit="utf16",
    max_buttons=BUTTONS,
    max_label=LABEL,
    max_command=CUSTOM_ID,
    max_upload=FILE_BYTES,
    edit_seconds=1.0,
    messages_per_second=1.0,  # the bucket of a channel is 5 in 5 s
    overall_per_second=45.0,  # 50 for all requests of a bot
    ack_seconds=3.0,
    # Within a few minutes the enforced nonce gives the same message back; later the gateway's echo of our own messages answers `find`
    # as long as this process lives.
    resend="safe",
)
