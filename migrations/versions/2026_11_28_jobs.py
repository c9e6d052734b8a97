"""Jobs: lists of numbers that callers of the front door have looked up in the background.

Revision: 2026_11_28_jobs
Follows: 2026_11_28_web_sessions
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_jobs"
down_revision = "2026_11_28_web_sessions"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
COUNTS = (
    "rows", "bad_rows", "numbers", "not_ported", "ported", "virtual", "unknown", "invalid", "unanswered",
    "charged", "parts", "parts_done", "failures",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("column_name", sa.Text, nullable=False),
        *(sa.Column(each, sa.Integer, nullable=False) for each in COUNTS),
        sa.Column("waits_until", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("ended_at", MOMENT),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("served_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="job_pkey"),
    )
    op.create_index("job_account_id_idx", "job", ["account_id", "id"])
    op.create_index("job_changed_at_idx", "job", ["changed_at"])
    op.create_index(
        "job_open_idx", "job", ["served_at"], postgresql_where=sa.text("state IN ('queued', 'running')")
    )
    op.create_table(
        "job_part",
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("lines", sa.ARRAY(sa.Integer), nullable=False),
        sa.Column("refs", sa.ARRAY(sa.Integer), nullable=False),
        sa.Column("msisdns", sa.ARRAY(sa.BigInteger), nullable=False),
        *(
            sa.Column(each, sa.ARRAY(sa.Text))
            for each in ("statuses", "range_holders", "current_operators", "areas")
        ),
        sa.Column("observed_at", sa.ARRAY(MOMENT)),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("request_id", sa.Uuid),
        sa.Column("owner", sa.Integer),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "place", name="job_part_pkey"),
    )
    op.create_index(
        "job_part_open_idx", "job_part", ["job_id", "place"], postgresql_where=sa.text("NOT done")
    )
    op.create_table(
        "job_error",
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("came", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "line", name="job_error_pkey"),
    )


def downgrade() -> None:
    for table in ("job_error", "job_part", "job"):
        op.drop_table(table)
