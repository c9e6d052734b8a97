"""The console's operators, and an index of the calls that went wrong, which it lists.

Revision: 2026_11_28_console
Follows: 2026_11_28_jobs
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_console"
down_revision = "2026_11_28_jobs"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "console_operator",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_log_in_at", MOMENT),
        sa.Column("disabled_at", MOMENT),
        sa.PrimaryKeyConstraint("name", name="console_operator_pkey"),
    )
    op.create_index(
        "lookup_call_failed_idx",
        "lookup_call",
        ["sent_at"],
        postgresql_where=sa.text("outcome IN ('lost', 'refused')"),
    )


def downgrade() -> None:
    op.drop_index("lookup_call_failed_idx", "lookup_call")
    op.drop_table("console_operator")
