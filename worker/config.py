"""``Settings``: everything presend can be told, read from ``PRESEND_*``; the only reader of the environment.

Each field's comment says what it means and in which unit; docs/settings.md is held to this
file by a test.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker import masking
from worker.errors import SettingsError
from worker.portability.failure_codes import NOT_ASKED, FailureClass
from worker.portability.requests import Lane

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Slots = Annotated[int, Field(ge=1, le=64)]
Days = Annotated[int, Field(ge=1, le=36500)]

_NUMBERS = {int: "a whole number", float: "a number"}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most"}

_PREFIX, _FILE = "PRESEND_", "_FILE"

APIKEY_LENGTH = 32
"""Characters of a provider key (the provider's document, code 1)."""


class Settings(BaseSettings):
    """What presend is told. Frozen; read once a process by :func:`load`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    # Where messages come from and events go: amqp://, amqps://, redis:// or rediss://
    broker_url: str = "amqp://guest:guest@127.0.0.1:5672//"
    # Results, the closed gate, and whatever else workers share
    redis_url: str = "redis://127.0.0.1:6379/0"
    # Port records, ledger, dead letters: postgresql://user:password@host:port/database
    database_url: str = "postgresql://presend:presend@127.0.0.1:5432/presend"

    # Base URL of the provider's contract
    provider_url: str = "http://isp.qxt800.com"
    # The account's key, 32 characters
    provider_apikey: str = ""
    # Whole-call time-outs as "single,batch"; one number sets both
    provider_timeout_seconds: Annotated[tuple[float, float], NoDecode] = (3.0, 15.0)
    # Codes the provider bills a look-up for
    billed_codes: Annotated[frozenset[int], NoDecode] = frozenset({0, -4})

    # Numbers that may be bought a day; 0: no bound
    daily_budget: Annotated[int, Field(ge=0)] = 0
    # Share of the budget that only recharges and direct callers may use
    budget_reserve: Annotated[float, Field(ge=0, le=1)] = 0.2
    # IANA name of the zone whose midnight ends the budget's day
    timezone: str = "Asia/Shanghai"

    # Provider calls in flight at once, per process and lane
    recharge_slots: Slots = 8
    sms_slots: Slots = 8
    direct_slots: Slots = 8
    # The same for the jobs of the query page, per process of presend serve
    job_slots: Annotated[int, Field(ge=1, le=8)] = 2
    # How long a lane waits for a batch to fill while a slot is free
    recharge_linger_seconds: Seconds = 0.0
    sms_linger_seconds: Seconds = 0.25
    direct_linger_seconds: Seconds = 0.0
    # A stored record younger than this may answer
    recharge_max_age_seconds: Seconds = 600.0
    sms_max_age_seconds: Seconds = 86400.0
    direct_max_age_seconds: Seconds = 0.0

    # A recharge not decided this long after its receipt is unverified, reason expired
    recharge_expiry_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    # A call of the front door not answered this long after its receipt is told -8
    direct_deadline_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    # How long a recharge waits for another call in flight for its number before it buys itself
    recharge_share_wait_seconds: Seconds = 0.3
    # An sms past this attempt is given up
    max_attempts: Annotated[int, Field(ge=1)] = 3
    # Failure classes that porting cannot explain: decided without asking
    sms_not_asked: Annotated[frozenset[FailureClass], NoDecode] = NOT_ASKED
    # CSV file that overrides or extends the shipped failure codes
    failure_codes: Path | None = None

    # Days a decided request and its call are kept: so long its key is remembered
    ledger_days: Days = 90
    # Days a dead letter is kept that nobody replayed; a replayed one goes PRESEND_LEDGER_DAYS afterwards
    dead_letter_days: Days = 365
    # Days a job of the query page is kept after it last got on, numbers and answers with it
    job_days: Days = 30
    # Days an observed change of operator is kept
    port_change_days: Days = 730

    # How long a Celery result is kept
    result_seconds: Annotated[int, Field(ge=1)] = 3600
    # Entries the Redis stream keeps, about; an entry is a message
    stream_length: Annotated[int, Field(ge=1)] = 1_000_000
    # Most events of one type a message holds; 1: each has its own
    event_batch: Annotated[int, Field(ge=1, le=1000)] = 1
    # Port of /metrics, the first of consecutive ones: each process takes the next that is free; 0: none
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9464
    # Address it listens on
    metrics_host: str = "127.0.0.1"
    # How often upkeep asks the provider for the balance: shown there, and kept for presend audit
    balance_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    # OpenTelemetry collector that traces go to (OTLP over HTTP, the whole URL); empty: none
    traces_endpoint: str = ""
    # Share of the traces begun here that are kept; what a producer decided stands
    traces_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    # Log lines: json, console, or auto (json unless a terminal is watching)
    log_format: Literal["auto", "json", "console"] = "auto"
    # Send Celery task events, which Flower shows
    task_events: bool = True
    # Read RabbitMQ's deliveries in bulk; false: as py-amqp does, one after the other
    bulk_receive: bool = True

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, url: str) -> str:
        if not url.startswith(("amqp://", "amqps://", "redis://", "rediss://")):
            raise ValueError("must start with amqp://, amqps://, redis:// or rediss://")
        return url

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return url

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, url: str) -> str:
        if not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        return url

    @field_validator("provider_url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return url.rstrip("/")

    @field_validator("traces_endpoint")
    @classmethod
    def _collector(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://, as http://127.0.0.1:4318/v1/traces")
        return url

    @field_validator("provider_apikey")
    @classmethod
    def _apikey_form(cls, apikey: str) -> str:
        form = f"must be {APIKEY_LENGTH} printable ASCII characters without spaces"
        if apikey and len(apikey) != APIKEY_LENGTH:
            raise ValueError(f"{form}, this one has {len(apikey)} characters")
        if not all("!" <= each <= "~" for each in apikey):
            raise ValueError(f"{form}, this one holds others")
        return apikey

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be an IANA time zone, as Asia/Shanghai") from None
        return name

    @field_validator("provider_timeout_seconds", mode="before")
    @classmethod
    def _timeouts(cls, value: Any) -> Any:
        if not isinstance(value, str | int | float):
            return value
        try:
            parts = [float(part) for part in str(value).split(",")]
        except ValueError:
            parts = []
        if len(parts) not in {1, 2} or min(parts) <= 0:
            raise ValueError('must be positive seconds, as "3,15" (single, batch) or one number for both')
        return parts[0], parts[-1]

    @field_validator("billed_codes", "sms_not_asked", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @property
    def broker_is_redis(self) -> bool:
        """Whether messages come over Redis (else AMQP)."""
        return self.broker_url.startswith("redis")

    def slots(self, lane: Lane) -> int:
        """``PRESEND_<LANE>_SLOTS``."""
        return int(getattr(self, f"{lane}_slots"))

    def linger_seconds(self, lane: Lane) -> float:
        """``PRESEND_<LANE>_LINGER_SECONDS``."""
        return float(getattr(self, f"{lane}_linger_seconds"))

    @property
    def max_age_seconds(self) -> dict[Lane, float]:
        """``PRESEND_<LANE>_MAX_AGE_SECONDS`` by lane."""
        return {lane: float(getattr(self, f"{lane}_max_age_seconds")) for lane in Lane}

    @property
    def log_json(self) -> bool | None:
        """``PRESEND_LOG_FORMAT`` for ``logs.configure``; None: as whoever watches needs it."""
        return None if self.log_format == "auto" else self.log_format == "json"

    @property
    def recharge_expiry(self) -> timedelta:
        """``PRESEND_RECHARGE_EXPIRY_SECONDS``."""
        return timedelta(seconds=self.recharge_expiry_seconds)

    def require_apikey(self) -> str:
        """Return the provider's key, for processes that call the provider."""
        if not self.provider_apikey:
            raise SettingsError(
                "PRESEND_PROVIDER_APIKEY is not set: write the account's 32-character key there "
                "(the sandbox takes 7c11272au708345c834b8ue81ac78972)"
            )
        return self.provider_apikey


def given() -> set[str]:
    """The fields of ``Settings`` that the environment gives, itself or by a file."""
    names = {name.removeprefix(_PREFIX).removesuffix(_FILE).lower() for name, value in _ours() if value}
    return names & Settings.model_fields.keys()


def unknown() -> list[str]:
    """Names in the environment that look like settings and are none."""
    known = {f"{_PREFIX}{name.upper()}{end}" for name in Settings.model_fields for end in ("", _FILE)}
    return sorted({name for name, _ in _ours()} - known)


def _ours() -> list[tuple[str, str]]:
    return [(name, value) for name, value in os.environ.items() if name.startswith(_PREFIX)]


def _from_files() -> dict[str, str]:
    """Settings whose values lie in files, as secrets of containers do: ``PRESEND_<SETTING>_FILE``."""
    values = {}
    for name in Settings.model_fields:
        variable = f"{_PREFIX}{name.upper()}"
        path = os.environ.get(f"{variable}{_FILE}")
        if not path:
            continue
        if os.environ.get(variable):
            raise SettingsError(f"{variable} and {variable}{_FILE} are both set: unset one of them")
        try:
            values[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise SettingsError(
                f"{variable}{_FILE}: {path} cannot be read ({why}): name a readable file there"
            ) from exc
    return {name: value for name, value in values.items() if value}


def load(**overrides: Any) -> Settings:
    """Read the settings; ``SettingsError`` names every wrong one and what it must be.

    The key and the passwords among them are hidden from logs and error texts from now on.
    """
    try:
        settings = Settings(**_from_files() | overrides)
    except ValidationError as exc:
        raise SettingsError(
            "; ".join(
                f"PRESEND_{'_'.join(str(part) for part in error['loc'][:1]).upper()} {_plain(error)}"
                for error in exc.errors(include_input=False, include_url=False)
            )
        ) from None
    masking.hide(settings.provider_apikey)
    for url in (settings.broker_url, settings.redis_url, settings.database_url, settings.provider_url):
        masking.hide_password(url)
    return settings


def _plain(error: Any) -> str:
    """What the setting must be, and never the value, which may hold a secret."""
    name = str(error["loc"][0])
    field = Settings.model_fields[name]
    if field.annotation in _NUMBERS:
        bounds = [
            f"{words} {getattr(each, bound):g}"
            for bound, words in _BOUNDS.items()
            for each in field.metadata
            if hasattr(each, bound)
        ]
        return f"must be {_NUMBERS[field.annotation]}, {' and '.join(bounds)}, as {field.default}"
    if field.annotation is bool:
        return "must be true or false"
    if name == "billed_codes":
        return "must be whole numbers with commas between them, as 0,-4"
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
