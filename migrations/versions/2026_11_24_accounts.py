"""Accounts of the front door's callers: what each has, holds for calls in progress, and every movement.

Revision: 2026_11_24_accounts
Follows: 2026_11_24
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24_accounts"
down_revision = "2026_11_24"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key_hash", sa.Text, nullable=False),
        sa.Column("old_key_hash", sa.Text),
        sa.Column("old_key_until", MOMENT),
        sa.Column("fee_type", sa.Text, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("credit_limit", sa.BigInteger),
        sa.Column("calls_a_minute", sa.Integer),
        sa.Column("calls_until", MOMENT),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="account_pkey"),
        sa.CheckConstraint(
            "held >= 0 AND (fee_type <> 'prepaid' OR balance >= held)", name="account_never_oversold"
        ),
    )
    op.create_index("account_name_idx", "account", ["name"], unique=True)
    op.create_index("account_key_hash_idx", "account", ["key_hash"], unique=True)
    op.create_index("account_old_key_hash_idx", "account", ["old_key_hash"])
    op.create_table(
        "account_hold",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("numbers", sa.Integer, nullable=False),
        sa.Column("charged", sa.Integer),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="account_hold_pkey"),
    )
    op.create_index("account_hold_until_idx", "account_hold", ["until"])
    op.create_table(
        "account_movement",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Uuid),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="account_movement_pkey"),
    )
    op.create_index("account_movement_account_id_idx", "account_movement", ["account_id", "id"])


def downgrade() -> None:
    for table in ("account_movement", "account_hold", "account"):
        op.drop_table(table)
