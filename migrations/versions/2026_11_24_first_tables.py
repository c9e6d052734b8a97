"""The first tables: port records and changes, calls, batches, ledger, gate, dead letters, sums.

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

# The same sums over pruned rows and those still there; worker/storage/retention.py adds up what it deletes
# in these words.
LEDGER_SUM = """
    CREATE VIEW ledger_sum AS
    SELECT day, lane, kind, name, sum(total)::bigint AS total FROM (
        SELECT day, lane, kind, name, total FROM daily_sum
        UNION ALL
        SELECT (decided_at AT TIME ZONE 'Asia/Shanghai')::date, lane, 'decisions',
               decision || ' (' || reason || ')', count(*)
        FROM check_request GROUP BY 1, 2, 4
        UNION ALL
        SELECT (sent_at AT TIME ZONE 'Asia/Shanghai')::date, lane, part.kind, outcome, sum(part.total)
        FROM lookup_call, LATERAL (VALUES
            ('calls', 1), ('numbers', numbers), ('billed', billed),
            ('unanswered', cardinality(unanswered)), ('overtaken', cardinality(overtaken))
        ) AS part(kind, total)
        WHERE part.total > 0 GROUP BY 1, 2, 3, 4
        UNION ALL
        SELECT (observed_before AT TIME ZONE 'Asia/Shanghai')::date, '', 'port changes',
               donor || ' to ' || recipient, count(*)
        FROM port_change GROUP BY 1, 4
        UNION ALL
        SELECT (received_at AT TIME ZONE 'Asia/Shanghai')::date,
               CASE WHEN task LIKE 'recharge.%' THEN 'recharge' WHEN task LIKE 'sms.%' THEN 'sms' ELSE '' END,
               'dead letters', CASE WHEN replayed_at IS NULL THEN 'not replayed' ELSE 'replayed' END, count(*)
        FROM dead_letter GROUP BY 1, 2, 4
    ) AS parts(day, lane, kind, name, total)
    GROUP BY day, lane, kind, name
"""


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
        sa.Column("owner", sa.Integer, nullable=False),
        sa.Column("reserved", sa.Integer),
        sa.Column("budget_day", sa.Date),
        sa.PrimaryKeyConstraint("id", name="lookup_call_pkey"),
    )
    op.create_index(
        "lookup_call_open_idx", "lookup_call", ["until"], postgresql_where=sa.text("outcome = 'calling'")
    )
    op.create_index("lookup_call_sent_at_idx", "lookup_call", ["sent_at"])
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
    op.create_index("lookup_batch_decided_at_idx", "lookup_batch", ["decided_at"])
    op.create_table(
        "in_flight",
        sa.Column("msisdn", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("call_id", sa.Uuid, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("msisdn", name="in_flight_pkey"),
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
    op.create_index("check_request_decided_at_idx", "check_request", ["decided_at"])
    op.create_table(
        "gate",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("closed_at", MOMENT, nullable=False),
        sa.Column("closed_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("account", name="gate_pkey"),
    )
    op.create_table(
        "lane_pause",
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("paused_at", MOMENT, nullable=False),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("lane", name="lane_pause_pkey"),
    )
    op.create_table(
        "operator_action",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="operator_action_pkey"),
    )
    op.create_index("operator_action_at_idx", "operator_action", ["at"])
    op.create_table(
        "lane_breaker",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("lost_in_a_row", sa.Integer, nullable=False),
        sa.Column("pauses", sa.Integer, nullable=False),
        sa.Column("next_call_at", MOMENT, nullable=False),
        sa.Column("probing_until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("account", "lane", name="lane_breaker_pkey"),
    )
    op.create_table(
        "budget_day",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("taken", sa.Integer, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("day", name="budget_day_pkey"),
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
    op.create_table(
        "suspicion",
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("first_at", MOMENT, nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="suspicion_pkey"),
    )
    op.create_table(
        "daily_sum",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("day", "lane", "kind", "name", name="daily_sum_pkey"),
    )
    op.execute(LEDGER_SUM)


def downgrade() -> None:
    op.execute("DROP VIEW ledger_sum")
    for table in (
        "daily_sum",
        "suspicion",
        "dead_letter",
        "operator_action",
        "lane_pause",
        "budget_day",
        "lane_breaker",
        "gate",
        "check_request",
        "in_flight",
        "lookup_batch",
        "lookup_call",
        "port_change",
        "port_record",
    ):
        op.drop_table(table)
