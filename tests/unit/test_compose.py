"""docker-compose.yml names only settings and commands that exist, and runs ours locked down."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from worker.config import Settings
from worker.feed import SHUTDOWN_SECONDS
from worker.processes.role import GRACE_SECONDS

CHECKOUT = Path(__file__).parents[2]
COMPOSE = (CHECKOUT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "presend"}


def words(service: dict[str, Any]) -> list[str]:
    command = service["command"]
    return shlex.split(command) if isinstance(command, str) else list(command)


def test_every_lane_the_engines_and_what_people_watch_are_there() -> None:
    assert set(SERVICES) == {
        *("postgres", "rabbitmq", "valkey"),
        *("migrate", "worker-recharge", "worker-sms", "upkeep", "sandbox", "flower"),
    }


def test_every_setting_named_exists() -> None:
    named = set(re.findall(r"\bPRESEND_([A-Z0-9_]+)", COMPOSE))
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_settings_given_are_accepted() -> None:
    given = OURS["worker-sms"]["environment"]
    values = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in given.items()}
    settings = Settings(**{name.removeprefix("PRESEND_").lower(): value for name, value in values.items()})
    assert settings.provider_apikey == "7c11272au708345c834b8ue81ac78972"
    assert settings.provider_url == "http://sandbox:8400"


@pytest.mark.parametrize(
    "arguments",
    [words(service) for service in OURS.values() if words(service)[0] == "presend"],
    ids=" ".join,
)
def test_every_command_exists_and_takes_these_options(arguments: list[str]) -> None:
    from worker import cli

    command: click.Command = cli.main
    context = click.Context(command, info_name="presend")
    rest = arguments[1:]
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found is not None, f"presend has no {rest[0]}"
        command, rest = found, rest[1:]
    command.make_context(arguments[1], rest, parent=context)


def test_flower_reads_the_app_that_exists() -> None:
    assert words(OURS["flower"])[:3] == ["celery", "-A", "worker.app"]
    from worker import app

    assert app.app.main == "presend"


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_are_locked_down_and_given_time_to_finish(name: str) -> None:
    service = OURS[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    grace_seconds = float(service["stop_grace_period"].removesuffix("s"))
    assert SHUTDOWN_SECONDS < GRACE_SECONDS < grace_seconds, "each waits a little longer than what it stops"
    assert service["mem_limit"]
    assert service["restart"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate", "upkeep"}))
def test_every_service_others_rely_on_tells_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", ["worker-recharge", "worker-sms", "upkeep"])
def test_workers_wait_for_the_migrations(name: str) -> None:
    assert OURS[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_ports_are_published_on_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_runs_as_a_normal_user_and_is_stopped_by_sigterm() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    assert "STOPSIGNAL SIGTERM" in lines
