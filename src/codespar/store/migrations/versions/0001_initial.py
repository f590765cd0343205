"""The first schema."""

from alembic import op

from codespar.store.database import create_extras
from codespar.store.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table of the first release."""
    connection = op.get_bind()
    metadata.create_all(connection)
    create_extras(connection)
