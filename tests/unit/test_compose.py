"""docker-compose.yml names only settings and commands that exist, and runs ours locked down."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from worker import config
from worker.config import Settings
from worker.feed import SHUTDOWN_SECONDS
from worker.processes.role import GRACE_SECONDS
from worker.sandbox.provider import DEFAULT_APIKEY

CHECKOUT = Path(__file__).parents[2]
COMPOSE = (CHECKOUT / "docker-compose.yml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "presend"}


def words(service: dict[str, Any]) -> list[str]:
    command = service["command"]
    return shlex.split(command) if isinstance(command, str) else list(command)


def test_every_lane_the_engines_and_what_people_watch_are_there() -> None:
    assert set(SERVICES) == {
        *("postgres", "rabbitmq", "valkey"),
        *("migrate", "worker-recharge", "worker-sms", "upkeep", "serve", "console"),
        *("sandbox", "flower", "prometheus", "grafana"),
    }


def test_every_setting_named_exists() -> None:
    named = set(re.findall(r"\bPRESEND_([A-Z0-9_]+)", COMPOSE))
    assert named
    assert {name.lower().removesuffix("_file") for name in named} <= set(Settings.model_fields)


def test_the_settings_given_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the containers are given them; where a secret is a file, the trial's own."""
    service = OURS["worker-sms"]
    assert all(each["environment"] == service["environment"] for each in OURS.values())
    for name, value in service["environment"].items():
        given = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        if name.endswith("_FILE"):
            given = str(secret_file(given.removeprefix("/run/secrets/")))
        monkeypatch.setenv(name, given)
    settings = config.load()
    assert settings.provider_apikey == DEFAULT_APIKEY
    assert settings.provider_url == f"http://sandbox:{port_of('sandbox')}"
    assert config.unknown() == []


def secret_file(name: str) -> Path:
    return CHECKOUT / re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", DOCUMENT["secrets"][name]["file"])


def test_every_secret_is_a_file_of_the_trials_and_engines_agree_with_them() -> None:
    secrets = {name: secret_file(name).read_text() for name in DOCUMENT["secrets"]}
    password = secrets["postgres_password"].strip()
    assert f"presend:{password}@postgres" in secrets["database_url"]
    user, rabbitmq = (line.partition("=")[2].strip() for line in secrets["rabbitmq_conf"].splitlines())
    assert secrets["broker_url"].startswith(f"amqp://{user}:{rabbitmq}@rabbitmq:")
    used = [
        each if isinstance(each, str) else each["source"]
        for s in SERVICES.values()
        for each in s.get("secrets", [])
    ]
    assert set(used) == set(secrets)


def test_engines_are_at_least_as_new_as_the_readme_asks() -> None:
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    for name, words in (("postgres", "PostgreSQL"), ("rabbitmq", "RabbitMQ")):
        asked = re.search(rf"{words} (\d+)[.\d]*\+", readme)
        runs = re.search(r":(\d+)", SERVICES[name]["image"])
        assert asked is not None
        assert runs is not None
        assert int(runs[1]) >= int(asked[1])


def test_no_password_stands_in_the_file() -> None:
    assert not re.search(r"(?i)password: |://\w+:\w+@", COMPOSE)


def port_of(name: str) -> str:
    """The port a service is published at, which it must listen on too."""
    (published,) = SERVICES[name]["ports"]
    _address, outside, inside = published.split(":")
    assert outside == inside
    return str(inside)


@pytest.mark.parametrize("name", ["sandbox", "serve", "console"])
def test_ports_are_the_commands_own_defaults(name: str) -> None:
    from worker import cli

    command = cli.main.get_command(click.Context(cli.main), name)
    assert command is not None
    (default,) = (option.default for option in command.params if option.name == "port")
    assert words(OURS[name])[words(OURS[name]).index("--port") + 1] == str(default) == port_of(name)


def test_prometheus_asks_each_process_where_it_is() -> None:
    (presend, flower) = yaml.safe_load((CHECKOUT / "deploy/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]
    (found,) = presend["dns_sd_configs"]
    assert set(found["names"]) == set(OURS) - {"migrate", "sandbox", "flower"}
    assert str(found["port"]) == OURS["serve"]["environment"]["PRESEND_METRICS_PORT"]
    assert flower["static_configs"][0]["targets"] == [f"flower:{port_of('flower')}"]
    mounted = {volume.split(":")[0] for volume in SERVICES["prometheus"]["volumes"] if volume[0] == "."}
    assert mounted == {"./deploy/prometheus"}


def test_grafana_finds_its_dashboards_and_prometheus() -> None:
    inside = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    provisioned = CHECKOUT / "deploy/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioned / "dashboards/presend.yml").read_text())["providers"]
    assert inside["./deploy/grafana/dashboards"] == provider["options"]["path"]
    (source,) = yaml.safe_load((provisioned / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{port_of('prometheus')}"


@pytest.mark.parametrize("program", ["docker-compose", "docker compose"])
def test_compose_itself_takes_the_file(program: str) -> None:
    asked = program.split()
    if (
        shutil.which(asked[0]) is None
        or subprocess.run([*asked, "version"], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"no {program} here")
    done = subprocess.run(
        [*asked, "-f", CHECKOUT / "docker-compose.yml", "--profile", "sandbox", "config", "-q"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


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
    while isinstance(command, click.Group) and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"presend has no {rest[0]}"
        command, rest = found, rest[1:]
    command.make_context(arguments[1], rest, parent=context)


def test_flower_reads_the_app_that_exists() -> None:
    assert words(OURS["flower"])[:3] == ["celery", "-A", "worker.app"]
    from worker import app

    assert app.app.main == "presend"


@pytest.mark.parametrize("name", sorted([*OURS, "prometheus", "grafana"]))
def test_containers_are_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    assert service["restart"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_are_given_time_to_finish(name: str) -> None:
    grace_seconds = float(OURS[name]["stop_grace_period"].removesuffix("s"))
    assert SHUTDOWN_SECONDS < GRACE_SECONDS < grace_seconds, "each waits a little longer than what it stops"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_every_service_others_rely_on_tells_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", ["worker-recharge", "worker-sms", "upkeep", "serve", "console"])
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
