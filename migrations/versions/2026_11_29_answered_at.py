"""When a record's answer came: whoever was waiting by then shares it.

Revision: 2026_11_29_answered_at
Follows: 2026_11_29_overtaken_from
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_29_answered_at"
down_revision = "2026_11_29_overtaken_from"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # without a default, so that no row is rewritten
    op.add_column("port_record", sa.Column("answered_at", sa.DateTime(timezone=True)), if_not_exists=True)


def downgrade() -> None:
    op.drop_column("port_record", "answered_at")
