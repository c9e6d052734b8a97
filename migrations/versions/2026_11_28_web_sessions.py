"""Sessions of the web sites, and log-in attempts.

Revision: 2026_11_28_web_sessions
Follows: 2026_11_24_accounts
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_web_sessions"
down_revision = "2026_11_24_accounts"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "web_session",
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.Column("notice", sa.Text),
        sa.PrimaryKeyConstraint("token_hash", name="web_session_pkey"),
    )
    op.create_index("web_session_site_idx", "web_session", ["site", "subject"])
    op.create_table(
        "log_in_attempt",
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.Column("wait_until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("site", "who", name="log_in_attempt_pkey"),
    )


def downgrade() -> None:
    for table in ("log_in_attempt", "web_session"):
        op.drop_table(table)
