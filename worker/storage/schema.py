"""The tables. ``migrations/`` creates them; ``alembic check`` holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

metadata = MetaData(
    naming_convention={"pk": "%(table_name)s_pkey", "ix": "%(table_name)s_%(column_0_name)s_idx"}
)

_moment = DateTime(timezone=True)
_uuid = Uuid(as_uuid=False)

port_record = Table(
    "port_record",
    metadata,
    Column("msisdn", BigInteger, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("range_holder", Text),
    Column("current_operator", Text),
    Column("area", Text),
    Column("observed_at", _moment, nullable=False),
    Column("changed_at", _moment),
    Column("source", Text, nullable=False),
    Column("answered_at", _moment),
)

port_change = Table(
    "port_change",
    metadata,
    Column("msisdn", BigInteger, nullable=False),
    Column("donor", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("observed_after", _moment, nullable=False),
    Column("observed_before", _moment, nullable=False),
    Column("doubtful", Boolean, nullable=False),
    Column("batch_id", _uuid, nullable=False),
    Column("event_id", _uuid, nullable=False),
    PrimaryKeyConstraint("msisdn", "observed_before"),
    Index(None, "batch_id"),
)

lookup_call = Table(
    "lookup_call",
    metadata,
    Column("id", _uuid, primary_key=True),
    Column("batch_id", _uuid, nullable=False),
    Column("lane", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("sent_at", _moment, nullable=False),
    Column("answered_at", _moment),
    Column("numbers", Integer, nullable=False),
    # numbers the provider charged for, as its codes say; null while calling and where lost
    Column("billed", Integer),
    # numbers it may have charged for although their answer was lost
    Column("unanswered", ARRAY(BigInteger)),
    # calling, answered, refused or lost
    Column("outcome", Text, nullable=False),
    # numbers bought although another call had them in flight: a recharge would not wait longer
    Column("overtaken", ARRAY(BigInteger)),
    # the calls they were taken over from, in the same order
    Column("overtaken_from", ARRAY(_uuid)),
    # no honest answer can come later than this; a call still `calling` then is lost
    Column("until", _moment, nullable=False),
    # the process that makes it; while it lives it holds an advisory lock under this number
    Column("owner", Integer, nullable=False),
    # numbers taken from a day's budget, until the call ends
    Column("reserved", Integer),
    Column("budget_day", Date),
    Index("lookup_call_open_idx", "until", postgresql_where=text("outcome = 'calling'")),
    Index("lookup_call_failed_idx", "sent_at", postgresql_where=text("outcome IN ('lost', 'refused')")),
    # by number; calls that lost nothing are not in it
    Index(
        "lookup_call_numbers_idx",
        "unanswered",
        "overtaken",
        postgresql_using="gin",
        postgresql_where=text("unanswered IS NOT NULL OR overtaken IS NOT NULL"),
    ),
    Index(
        None, "overtaken_from", postgresql_using="gin", postgresql_where=text("overtaken_from IS NOT NULL")
    ),
    Index(None, "sent_at"),
)

lookup_batch = Table(
    "lookup_batch",
    metadata,
    Column("id", _uuid, primary_key=True),
    Column("lane", Text, nullable=False),
    Column("decided_at", _moment, nullable=False),
    Column("numbers", Integer, nullable=False),
    # when the broker had confirmed every event of the batch; null: the relay may have to send them
    Column("emitted_at", _moment),
    Index("lookup_batch_unemitted_idx", "decided_at", postgresql_where=text("emitted_at IS NULL")),
    Index(None, "decided_at"),
)

in_flight = Table(
    "in_flight",
    metadata,
    Column("msisdn", BigInteger, primary_key=True, autoincrement=False),
    Column("call_id", _uuid, nullable=False),
    Column("until", _moment, nullable=False),
    # the call that held it before, where one was overtaken
    Column("taken_from", _uuid),
)

check_request = Table(
    "check_request",
    metadata,
    Column("source", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("msisdn", BigInteger),
    Column("asked_operator", Text),
    Column("failure_code", Text),
    Column("status", Text),
    Column("range_holder", Text),
    Column("current_operator", Text),
    Column("target_operator", Text),
    Column("area", Text),
    Column("observed_at", _moment),
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("answered_from", Text),
    Column("batch_id", _uuid, nullable=False),
    Column("call_id", _uuid),
    Column("event_id", _uuid, nullable=False),
    Column("received_at", _moment, nullable=False),
    Column("decided_at", _moment, nullable=False),
    # what tells requests apart comes first: each comparison on the way to a row ends there
    PrimaryKeyConstraint("reference", "source", "lane", "attempt"),
    Index(None, "batch_id"),
    Index(None, "msisdn"),
    Index(None, "decided_at"),
)

gate = Table(
    "gate",
    metadata,
    # a digest of provider and key, '' for every account; a row means that the gate is closed
    Column("account", Text, primary_key=True),
    Column("closed_at", _moment, nullable=False),
    Column("closed_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

lane_pause = Table(
    "lane_pause",
    metadata,
    # a row means that the lane is paused by hand
    Column("lane", Text, primary_key=True),
    Column("paused_at", _moment, nullable=False),
    Column("paused_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

operator_action = Table(
    "operator_action",
    metadata,
    Column("id", _uuid, primary_key=True),
    Column("at", _moment, nullable=False),
    # a login name, `provider` or `upkeep`
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "at"),
)

lane_breaker = Table(
    "lane_breaker",
    metadata,
    # a row means that the latest call of the account's lane was lost
    Column("account", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("lost_in_a_row", Integer, nullable=False),
    # pauses made since the last answer; each is twice as long as the one before
    Column("pauses", Integer, nullable=False),
    Column("next_call_at", _moment, nullable=False),
    # a worker is trying the provider with one number, at most so long
    Column("probing_until", _moment, nullable=False),
    PrimaryKeyConstraint("account", "lane"),
)

budget_day = Table(
    "budget_day",
    metadata,
    Column("day", Date, primary_key=True),
    # numbers bought, or being bought
    Column("taken", Integer, nullable=False),
    # when numbers were last taken
    Column("changed_at", _moment, nullable=False),
)

balance_reading = Table(
    "balance_reading",
    metadata,
    # the digest by which the gate knows the account
    Column("account", Text, nullable=False),
    # the balance stood so at some moment between the two
    Column("asked_at", _moment, nullable=False),
    Column("answered_at", _moment, nullable=False),
    # prepaid or postpaid
    Column("fee_type", Text, nullable=False),
    Column("balance", BigInteger, nullable=False),
    PrimaryKeyConstraint("account", "asked_at"),
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", _uuid, primary_key=True),
    Column("task", Text),
    # the item's arguments, or {"base64": …} where the body could not be decoded; `json`, not
    # `jsonb`: it keeps what was sent, \\u0000 included
    Column("payload", JSON, nullable=False),
    Column("reason", Text, nullable=False),
    Column("queue", Text),
    Column("received_at", _moment, nullable=False),
    Column("replayed_at", _moment),
    Index(None, "received_at"),
)

suspicion = Table(
    "suspicion",
    metadata,
    # an item that was in a running batch of suspects when its process died: the id its dead letter would have
    Column("item_id", _uuid, primary_key=True),
    Column("deaths", Integer, nullable=False),
    # when the first and the last of these batches began
    Column("first_at", _moment, nullable=False),
    Column("last_at", _moment, nullable=False),
)

account = Table(
    "account",
    metadata,
    # a caller of the front door
    Column("id", _uuid, primary_key=True),
    Column("name", Text, nullable=False),
    # SHA-256 of the key, in hex; the key itself is stored nowhere
    Column("key_hash", Text, nullable=False),
    # the key before, good until then
    Column("old_key_hash", Text),
    Column("old_key_until", _moment),
    # prepaid or postpaid
    Column("fee_type", Text, nullable=False),
    # look-ups left; what its movements add up to
    Column("balance", BigInteger, nullable=False),
    # look-ups reserved by calls in progress; what its holds without a charge add up to
    Column("held", BigInteger, nullable=False),
    # how far below zero a postpaid balance may fall; null: without end
    Column("credit_limit", BigInteger),
    Column("calls_a_minute", Integer),
    # the moment at which every call allowed so far would be used up at the even rate
    Column("calls_until", _moment),
    # active or disabled
    Column("status", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    CheckConstraint(
        "held >= 0 AND (fee_type <> 'prepaid' OR balance >= held)", name="account_never_oversold"
    ),
    Index(None, "name", unique=True),
    Index(None, "key_hash", unique=True),
    Index(None, "old_key_hash"),
)

account_hold = Table(
    "account_hold",
    metadata,
    # a call in progress: its request id
    Column("id", _uuid, primary_key=True),
    Column("account_id", _uuid, nullable=False),
    # look-ups reserved
    Column("numbers", Integer, nullable=False),
    # look-ups charged; null: not answered yet. The row goes once the answer is sent
    Column("charged", Integer),
    # past this its server is gone: upkeep releases what was reserved
    Column("until", _moment, nullable=False),
    Index(None, "until"),
)

account_movement = Table(
    "account_movement",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", _uuid, nullable=False),
    Column("at", _moment, nullable=False),
    # opening, topup, charge, refund, released or unsent
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    # the account's balance after it
    Column("balance", BigInteger, nullable=False),
    Column("request_id", _uuid),
    Column("note", Text, nullable=False),
    Index(None, "account_id", "id"),
    Index("account_movement_request_id_idx", "request_id", postgresql_where=text("request_id IS NOT NULL")),
)

job = Table(
    "job",
    metadata,
    # a caller's list of numbers on its way through
    Column("id", _uuid, primary_key=True),
    Column("account_id", _uuid, nullable=False),
    # the file it came in, numbers masked
    Column("name", Text, nullable=False),
    # queued, running, paused, finished or cancelled
    Column("state", Text, nullable=False),
    # why it is paused, or what it waits for while it runs
    Column("reason", Text),
    # the heading, or the number, of the column that holds the mobile numbers
    Column("column_name", Text, nullable=False),
    # rows with something in them, and how many of these hold no number
    Column("rows", Integer, nullable=False),
    Column("bad_rows", Integer, nullable=False),
    # distinct numbers, and what became of them so far
    Column("numbers", Integer, nullable=False),
    Column("not_ported", Integer, nullable=False),
    Column("ported", Integer, nullable=False),
    Column("virtual", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),
    Column("invalid", Integer, nullable=False),
    Column("unanswered", Integer, nullable=False),
    # look-ups charged
    Column("charged", Integer, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("parts_done", Integer, nullable=False),
    # tries in a row that answered nothing, and until when the next one waits
    Column("failures", Integer, nullable=False),
    Column("waits_until", _moment),
    Column("created_at", _moment, nullable=False),
    Column("started_at", _moment),
    Column("ended_at", _moment),
    # when it last got on, or somebody paused or resumed it
    Column("changed_at", _moment, nullable=False),
    # when a part of it was last taken: the jobs take turns
    Column("served_at", _moment),
    Index(None, "account_id", "id"),
    Index("job_open_idx", "served_at", postgresql_where=text("state IN ('queued', 'running')")),
    Index(None, "changed_at"),
)

job_part = Table(
    "job_part",
    metadata,
    # up to 1000 numbers that no earlier part holds, with the rows up to there
    Column("job_id", _uuid, nullable=False),
    Column("place", Integer, nullable=False),
    # line and number of each row; the number counts through all parts
    Column("lines", ARRAY(Integer), nullable=False),
    Column("refs", ARRAY(Integer), nullable=False),
    # a null is a number that was erased
    Column("msisdns", ARRAY(BigInteger), nullable=False),
    # answers, one a number; a null status: none yet
    Column("statuses", ARRAY(Text)),
    Column("range_holders", ARRAY(Text)),
    Column("current_operators", ARRAY(Text)),
    Column("areas", ARRAY(Text)),
    Column("observed_at", ARRAY(_moment)),
    Column("done", Boolean, nullable=False),
    # the call under way: its hold, and its numbers in the ledger
    Column("request_id", _uuid),
    # the process that makes it: its presence lock
    Column("owner", Integer),
    # calls that left numbers unanswered for which the provider is to blame
    Column("tries", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "place"),
    Index("job_part_open_idx", "job_id", "place", postgresql_where=text("NOT done")),
)

job_error = Table(
    "job_error",
    metadata,
    # a row that holds no mobile number
    Column("job_id", _uuid, nullable=False),
    Column("line", Integer, nullable=False),
    # what stood there
    Column("came", Text, nullable=False),
    # one word; the page says it in Chinese and English
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("job_id", "line"),
)

# What pruned rows added up to; the view ledger_sum, which migrations/ makes, adds the rows still there.
daily_sum = Table(
    "daily_sum",
    metadata,
    # Asia/Shanghai, the provider's day
    Column("day", Date, nullable=False),
    # empty where a row belongs to no lane
    Column("lane", Text, nullable=False),
    # what is added up: decisions, calls, numbers, billed, …
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "lane", "kind", "name"),
)

web_session = Table(
    "web_session",
    metadata,
    # SHA-256 of the token in the browser's cookie, in hex
    Column("token_hash", Text, primary_key=True),
    # console or query
    Column("site", Text, nullable=False),
    # an operator's name, or an account's id
    Column("subject", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    Column("seen_at", _moment, nullable=False),
    Column("ends_at", _moment, nullable=False),
    # what the next page says once, JSON
    Column("notice", Text),
    Index(None, "site", "subject"),
)

log_in_attempt = Table(
    "log_in_attempt",
    metadata,
    Column("site", Text, nullable=False),
    # a digest of a name or an address
    Column("who", Text, nullable=False),
    # in a row
    Column("failures", Integer, nullable=False),
    Column("last_at", _moment, nullable=False),
    Column("wait_until", _moment, nullable=False),
    PrimaryKeyConstraint("site", "who"),
)

console_operator = Table(
    "console_operator",
    metadata,
    Column("name", Text, primary_key=True),
    # scrypt, its parameters and salt with it
    Column("password_hash", Text, nullable=False),
    # view or act
    Column("role", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    Column("last_log_in_at", _moment),
    # null: may log in
    Column("disabled_at", _moment),
)
