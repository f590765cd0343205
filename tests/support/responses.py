"""What the property tests of the renderers share."""

from __future__ import annotations

from codespar.domain.messages import Attachment


def attached(name: str, media_type: str, size: int, sha256: str) -> Attachment:
    """An attachment, for `st.builds`: the class's own signature has the names of the wire once it was used."""
    return Attachment(name=name, media_type=media_type, size=size, sha256=sha256)
