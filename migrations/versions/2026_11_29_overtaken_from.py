"""From which call a number was taken over, so that a call that dies can name all its numbers.

Revision: 2026_11_29_overtaken_from
Follows: 2026_11_28_balance_readings
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_29_overtaken_from"
down_revision = "2026_11_28_balance_readings"
branch_labels = None
depends_on = None

INDEX = "lookup_call_overtaken_from_idx"


def upgrade() -> None:
    op.add_column("in_flight", sa.Column("taken_from", sa.Uuid), if_not_exists=True)
    op.add_column("lookup_call", sa.Column("overtaken_from", postgresql.ARRAY(sa.Uuid)), if_not_exists=True)
    with op.get_context().autocommit_block():  # beside workers that write
        op.drop_index(INDEX, "lookup_call", if_exists=True)  # left by an attempt that was cut off
        op.create_index(
            INDEX,
            "lookup_call",
            ["overtaken_from"],
            postgresql_using="gin",
            postgresql_where=sa.text("overtaken_from IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(INDEX, "lookup_call")
    op.drop_column("lookup_call", "overtaken_from")
    op.drop_column("in_flight", "taken_from")
