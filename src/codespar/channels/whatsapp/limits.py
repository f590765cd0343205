"""What the WhatsApp Cloud API takes, as Meta's reference pages state it (Graph API v25, November 2026).

The pages count "characters" and do not say which. Texts are counted in UTF-16 units and ids in bytes, which is never less than what any
other reading gives.
"""

from __future__ import annotations

TEXT_BODY = 4096  # of a text message
INTERACTIVE_BODY = (
    1024  # of a message with buttons; lists take 4,096 in the newest pages and 1,024 in older ones
)
CAPTION = 1024  # under a document
FOOTER = 60
BUTTONS = 3  # of one message; with more it becomes a list
BUTTON_TITLE = 20
BUTTON_ID = 256
LIST_BUTTON = 20  # what opens the list
LIST_ROWS = 10  # in all sections together
ROW_TITLE = 24
ROW_DESCRIPTION = 72
ROW_ID = 200
TEMPLATE_PARAMETER = 1024
OPAQUE = 512  # biz_opaque_callback_data
UPLOAD = 100_000_000  # bytes of a document
DELIVERY = 3_000_000  # bytes of one delivery to the webhook
WINDOW_SECONDS = 24 * 3600.0  # after a person's last message, in which free text may be sent
