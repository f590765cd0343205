"""What is watched at code hosts: how far, builds and how they stand, reviews; what is remembered, and when schedules fired."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables; an announcement may be standing."""
    op.create_table(
        "watches",
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("polled_at", sa.String(length=32), nullable=True),
        sa.Column("heard_at", sa.String(length=32), nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project"),
    )
    op.create_table(
        "runs",
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("run", sa.String(length=100), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "run", "attempt"),
    )
    op.create_index("runs_started", "runs", ["project", "started_at"], unique=False)
    op.create_index("runs_commit", "runs", ["project", "commit"], unique=False)
    op.create_table(
        "standings",
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("branch", sa.String(length=255), nullable=False),
        sa.Column("workflow", sa.String(length=255), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "branch", "workflow"),
    )
    op.create_table(
        "reviews",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("head", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("reviews_of", "reviews", ["project", "number", "head"], unique=True)
    op.create_table(
        "memories",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("memories_project", "memories", ["project"], unique=False)
    op.create_table(
        "schedules",
        sa.Column("project", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("fired_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("project", "name"),
    )
    op.add_column("announcements", sa.Column("standing", sa.Integer(), server_default="0", nullable=False))
