"""What the provider's /balance said over time, for the audit of its bill.

Revision: 2026_11_28_balance_readings
Follows: 2026_11_28_number_story
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_balance_readings"
down_revision = "2026_11_28_number_story"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "balance_reading",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("answered_at", MOMENT, nullable=False),
        sa.Column("fee_type", sa.Text, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account", "asked_at", name="balance_reading_pkey"),
    )


def downgrade() -> None:
    op.drop_table("balance_reading")
