"""Settings: what a wrong one says, and that docs/settings.md tells them all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from worker import config
from worker.config import Settings
from worker.errors import SettingsError

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
KEY = "7c11272au708345c834b8ue81ac78972"


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PRESEND_{name.upper()}", raising=False)
        monkeypatch.delenv(f"PRESEND_{name.upper()}_FILE", raising=False)


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| `PRESEND_(\w+)` \| (?:`([^`]*)`)? ?\|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    return {name.lower(): default for name, default in rows}


def test_the_document_tells_every_setting_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = documented()
    assert set(defaults) == set(Settings.model_fields)
    plain = config.load()
    for name, default in defaults.items():
        if default:
            monkeypatch.setenv(f"PRESEND_{name.upper()}", default)
    assert config.load() == plain


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("broker_url", "kafka://x", "must start with amqp://"),
        ("database_url", "mysql://x", "must start with postgresql://"),
        ("provider_apikey", "short", "must be 32 printable ASCII characters without spaces, this one has 5"),
        ("provider_apikey", "钥" * 32, "must be 32 printable ASCII characters without spaces"),
        ("provider_apikey", KEY[:-1] + " ", "must be 32 printable ASCII characters without spaces"),
        ("provider_apikey", KEY[:-1] + "\x7f", "must be 32 printable ASCII characters without spaces"),
        ("provider_timeout_seconds", "0", "must be positive seconds"),
        ("provider_timeout_seconds", "1,2,3", "must be positive seconds"),
        ("provider_timeout_seconds", "soon", "must be positive seconds"),
        ("sms_slots", "0", "must be a whole number, at least 1 and at most 64, as 8"),
        ("ledger_days", "x", "must be a whole number, at least 1 and at most 36500, as 90"),
        ("stream_length", "1e6", "must be a whole number, at least 1, as 1000000"),
        ("event_batch", "1001", "must be a whole number, at least 1 and at most 1000, as 1"),
        ("daily_budget", "1.5", "must be a whole number, at least 0, as 0"),
        ("sms_linger_seconds", "-1", "must be a number, at least 0, as 0.25"),
        ("sms_linger_seconds", "inf", "must be a number, at least 0, as 0.25"),
        ("recharge_expiry_seconds", "soon", "must be a number, more than 0 and at most 3600, as 5.0"),
        ("billed_codes", "0,x", "must be whole numbers with commas between them, as 0,-4"),
        ("metrics_port", "x", "must be a whole number, at least 0 and at most 65535, as 9464"),
        (
            "traces_endpoint",
            "collector:4318",
            "must start with http:// or https://, as http://127.0.0.1:4318",
        ),
        ("task_events", "maybe", "must be true or false"),
        ("sms_not_asked", "refused,whatever", "must be"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"PRESEND_{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        config.load()
    assert f"PRESEND_{name.upper()}" in str(caught.value)
    assert says in str(caught.value)
    assert value not in str(caught.value) or name != "provider_apikey"


def test_a_secret_is_not_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESEND_PROVIDER_APIKEY", "hunter2")
    monkeypatch.setenv("PRESEND_BROKER_URL", "kafka://user:hunter2@host")
    with pytest.raises(SettingsError) as caught:
        config.load()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("value", "seconds"), [("2", (2.0, 2.0)), ("3,15", (3.0, 15.0)), ("0.5, 4", (0.5, 4.0))]
)
def test_time_outs(monkeypatch: pytest.MonkeyPatch, value: str, seconds: Any) -> None:
    monkeypatch.setenv("PRESEND_PROVIDER_TIMEOUT_SECONDS", value)
    assert config.load().provider_timeout_seconds == seconds


def test_the_key_is_asked_for_only_where_it_is_needed() -> None:
    settings = config.load()
    with pytest.raises(SettingsError, match="PRESEND_PROVIDER_APIKEY is not set"):
        settings.require_apikey()
    assert config.load(provider_apikey=KEY).require_apikey() == KEY


def test_a_value_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "apikey"
    secret.write_text(f"{KEY}\n")
    monkeypatch.setenv("PRESEND_PROVIDER_APIKEY_FILE", str(secret))
    assert config.load().provider_apikey == KEY
    assert config.given() == {"provider_apikey"}
    assert config.unknown() == []
    monkeypatch.setenv("PRESEND_PROVIDER_APIKEY", KEY)
    with pytest.raises(SettingsError, match="are both set: unset one"):
        config.load()
    monkeypatch.delenv("PRESEND_PROVIDER_APIKEY")
    monkeypatch.setenv("PRESEND_PROVIDER_APIKEY_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"PRESEND_PROVIDER_APIKEY_FILE: .* cannot be read"):
        config.load()


def test_a_misspelt_setting_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESEND_SMS_SLOT", "9")
    assert config.unknown() == ["PRESEND_SMS_SLOT"]
