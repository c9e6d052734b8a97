"""deploy/kubernetes names only settings and commands that exist, and selects what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from worker import cli
from worker.config import Settings
from worker.processes.role import GRACE_SECONDS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OBJECTS: list[dict[str, Any]] = [
    each | {"file": path.name}
    for path in sorted(FOLDER.glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] in kinds]


PODS = {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind("Deployment", "Job")}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}


def check_command(arguments: list[str]) -> None:
    """The command exists and takes these options."""
    assert arguments[0] == "presend"
    command: click.Command = cli.main
    context, rest = click.Context(command, info_name="presend"), arguments[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"presend has no {rest[0]}"
        command, rest = found, rest[1:]
    command.make_context(arguments[1], rest, parent=context)


def test_what_is_applied_is_every_file_but_the_optional_ones() -> None:
    (kustomization,) = of_kind("Kustomization")
    files = {each["file"] for each in OBJECTS} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files - {"secret.example.yaml", "autoscaling.yaml"}


def test_settings_exist_and_their_files_are_in_the_secret() -> None:
    (config,), (secret,) = of_kind("ConfigMap"), of_kind("Secret")
    names = {name.removeprefix("PRESEND_").removesuffix("_FILE").lower() for name in config["data"]}
    assert names <= set(Settings.model_fields)
    files = {value for name, value in config["data"].items() if name.endswith("_FILE")}
    assert files == {f"/run/presend/{name}" for name in secret["stringData"]}
    Settings(**secret["stringData"])  # each is one that is taken


@pytest.mark.parametrize("name", sorted(PODS))
def test_a_pod_is_locked_down_and_runs_commands_that_exist(name: str) -> None:
    pod, container = PODS[name]["spec"], CONTAINERS[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert {"requests", "limits"} == set(container["resources"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    check_command(container["command"])
    for probe in ("startupProbe", "livenessProbe"):
        if probe in container:
            check_command(container[probe]["exec"]["command"])


@pytest.mark.parametrize("name", sorted(set(PODS) - {"migrate"}))
def test_what_runs_for_long_is_probed_scraped_and_given_time_to_end(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert {"startupProbe", "livenessProbe"} <= set(container)
    assert pod["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS
    (config,) = of_kind("ConfigMap")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    told = {config["data"]["PRESEND_METRICS_PORT"], pod["metadata"]["annotations"]["prometheus.io/port"]}
    assert told == {str(ports["metrics"])}


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget", "Service"])
def test_selectors_match_the_pods_of_their_name(kind: str) -> None:
    assert of_kind(kind)
    for each in of_kind(kind):
        selector = each["spec"]["selector"]
        labels = selector.get("matchLabels", selector)
        chosen = {name for name, pod in PODS.items() if labels.items() <= pod["metadata"]["labels"].items()}
        assert chosen == {each["metadata"]["name"]}


def test_services_lead_to_the_port_the_command_listens_on() -> None:
    for service in of_kind("Service"):
        container = CONTAINERS[service["metadata"]["name"]]
        (port,) = service["spec"]["ports"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        listens = container["command"][container["command"].index("--port") + 1]
        assert str(ports[port["targetPort"]]) == listens == str(port["port"])


def test_scaling_asks_for_a_rule_that_is_recorded() -> None:
    rules = yaml.safe_load((FOLDER.parent / "prometheus" / "alerts.yml").read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    for scaled in of_kind("ScaledObject"):
        assert scaled["spec"]["scaleTargetRef"]["name"] in PODS
        (trigger,) = scaled["spec"]["triggers"]
        assert any(f"{rule}{{" in trigger["metadata"]["query"] for rule in recorded)
