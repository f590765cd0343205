"""Schema migrations, by Alembic. Imported only when a database is not at this release's schema: Alembic is slow to import."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

FOLDER = Path(__file__).parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return config


def known_revisions() -> set[str]:
    """Every schema revision this release can start from."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to a schema, the newest one unless told otherwise, inside the transaction that the connection has begun."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
