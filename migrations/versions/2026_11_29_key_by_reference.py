"""The ledger's key begins with what tells requests apart: one comparison a step leads to its place.

Revision: 2026_11_29_key_by_reference
Follows: 2026_11_29_answered_at
"""

from __future__ import annotations

from alembic import op

revision = "2026_11_29_key_by_reference"
down_revision = "2026_11_29_answered_at"
branch_labels = None
depends_on = None

KEY, NEW = "check_request_pkey", "check_request_new_pkey"


def upgrade() -> None:
    _key_by(["reference", "source", "lane", "attempt"])


def downgrade() -> None:
    _key_by(["source", "lane", "reference", "attempt"])


def _key_by(columns: list[str]) -> None:
    with op.get_context().autocommit_block():  # beside workers that write
        op.drop_index(NEW, "check_request", if_exists=True)  # left by an attempt that was cut off
        op.create_index(NEW, "check_request", columns, unique=True, postgresql_concurrently=True)
    op.drop_constraint(KEY, "check_request")
    op.execute(f"ALTER TABLE check_request ADD CONSTRAINT {KEY} PRIMARY KEY USING INDEX {NEW}")
