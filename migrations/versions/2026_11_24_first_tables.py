"""The first tables: port records and changes, calls, batches, ledger, gate, dead letters.

Revision: 2026_11_24
Follows: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_11_24"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "port_record",
        sa.Column("msisdn", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("range_holder", sa.Text),
        sa.Column("current_operator", sa.Text),
        sa.Column("area", sa.Text),
        sa.Column("observed_at", MOMENT, nullable=False),
        sa.Column("changed_at", MOMENT),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("msisdn", name="port_record_pkey"),
    )
    op.create_table(
        "port_change",
        sa.Column("msisdn", sa.BigInteger, nullable=False),
        sa.Column("donor", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("observed_after", MOMENT, nullable=False),
        sa.Column("observed_before", MOMENT, nullable=False),
        sa.Column("doubtful", sa.Boolean, nullable=False),
        sa.Column("batch_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("msisdn", "observed_before", name="port_change_pkey"),
    )
    op.create_index("port_change_batch_id_idx", "port_change", ["batch_id"])
    op.create_table(
        "lookup_call",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("batch_id", sa.Uuid, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("sent_at", MOMENT, nullable=False),
        sa.Column("answered_at", MOMENT),
        sa.Column("numbers", sa.Integer, nullable=False),
        sa.Column("billed", sa.Integer),
        sa.Column("unanswered", sa.ARRAY(sa.BigInteger)),
        sa.Column("overtaken", sa.ARRAY(sa.BigInteger)),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="lookup_call_pkey"),
    )
    op.create_index(
        "lookup_call_open_idx", "lookup_call", ["until"], postgresql_where=sa.text("outcome = 'calling'")
    )
    op.create_table(
        "lookup_batch",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.Column("numbers", sa.Integer, nullable=False),
        sa.Column("emitted_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="lookup_batch_pkey"),
    )
    op.create_index(
        "lookup_batch_unemitted_idx",
        "lookup_batch",
        ["decided_at"],
        postgresql_where=sa.text("emitted_at IS NULL"),
    )
    op.create_table(
        "in_flight",
        sa.Column("msisdn", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("call_id", sa.Uuid, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("msisdn", name="in_flight_pkey"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "check_request",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("msisdn", sa.BigInteger),
        sa.Column("asked_operator", sa.Text),
        sa.Column("failure_code", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("range_holder", sa.Text),
        sa.Column("current_operator", sa.Text),
        sa.Column("target_operator", sa.Text),
        sa.Column("area", sa.Text),
        sa.Column("observed_at", MOMENT),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("answered_from", sa.Text),
        sa.Column("batch_id", sa.Uuid, nullable=False),
        sa.Column("call_id", sa.Uuid),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("source", "lane", "reference", "attempt", name="check_request_pkey"),
    )
    op.create_index("check_request_batch_id_idx", "check_request", ["batch_id"])
    op.create_index("check_request_msisdn_idx", "check_request", ["msisdn"])
    op.create_table(
        "gate",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("closed_at", MOMENT, nullable=False),
        sa.Column("closed_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("account", name="gate_pkey"),
    )
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("queue", sa.Text),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("replayed_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="dead_letter_pkey"),
    )
    op.create_index("dead_letter_received_at_idx", "dead_letter", ["received_at"])


def downgrade() -> None:
    for table in (
        "dead_letter",
        "gate",
        "check_request",
        "in_flight",
        "lookup_batch",
        "lookup_call",
        "port_change",
        "port_record",
    ):
        op.drop_table(table)
