"""What is asked of reviews without reading them whole: which are running, and how many were begun unasked. The runs of a branch."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
_reviews = sa.table("reviews", sa.column("id"), sa.column("state"), sa.column("unasked"), sa.column("body"))


def upgrade() -> None:
    """Add the columns, filled from the documents, and their indexes."""
    op.add_column("reviews", sa.Column("state", sa.String(length=16), server_default="", nullable=False))
    op.add_column("reviews", sa.Column("unasked", sa.Integer(), server_default="0", nullable=False))
    kept = op.get_bind()
    for id in kept.execute(sa.select(_reviews.c.id)).scalars().all():
        here = _reviews.c.id == id
        document = json.loads(kept.execute(sa.select(_reviews.c.body).where(here)).scalar_one())
        found = {"state": document["state"], "unasked": int(not document["by"])}
        kept.execute(sa.update(_reviews).where(here).values(**found))
    op.create_index("reviews_state", "reviews", ["project", "state"], unique=False)
    op.create_index("reviews_head", "reviews", ["project", "head"], unique=False)
    op.create_index("reviews_started", "reviews", ["project", "started_at"], unique=False)
    op.create_index("runs_branch", "runs", ["project", "branch", "workflow", "started_at"], unique=False)
