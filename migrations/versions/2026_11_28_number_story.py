"""Indexes by which one number's lost calls, and one call's charges, are found.

Revision: 2026_11_28_number_story
Follows: 2026_11_28_console
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_number_story"
down_revision = "2026_11_28_console"
branch_labels = None
depends_on = None


INDEXES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "lookup_call_numbers_idx": (
        "lookup_call",
        ["unanswered", "overtaken"],
        {
            "postgresql_using": "gin",
            "postgresql_where": sa.text("unanswered IS NOT NULL OR overtaken IS NOT NULL"),
        },
    ),
    "account_movement_request_id_idx": (
        "account_movement",
        ["request_id"],
        {"postgresql_where": sa.text("request_id IS NOT NULL")},
    ),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():  # beside workers that write
        for name, (table, columns, options) in INDEXES.items():
            op.drop_index(
                name, table, if_exists=True
            )  # an attempt that was cut off leaves one that is not valid
            op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def downgrade() -> None:
    for name, (table, _columns, _options) in INDEXES.items():
        op.drop_index(name, table)
