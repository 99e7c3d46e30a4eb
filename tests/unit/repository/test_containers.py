"""The Dockerfile and compose.yaml, read: what can be said of them without an engine."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from penstock.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile."""

    name: str
    text: str


def stages() -> list[list[Step]]:
    """The steps of every stage, FROM first."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[list[Step]] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append([])
        if name:
            found[-1].append(Step(name, rest.strip()))
    return found


def final(name: str) -> str:
    """The last instruction of that name in the final stage, which is the one that counts."""
    return [step.text for step in stages()[-1] if step.name == name][-1]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options that the real command line reads from these; runs nothing, raises if it would."""
    name, *rest = arguments
    params: dict[str, Any] = commands()[name].make_context(name, rest).params
    return params


def commands() -> dict[str, Any]:
    """The sub-commands, as the library below Typer knows them."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = group.commands
    return found


def arguments_of(service: str) -> list[str]:
    return shlex.split(SERVICES[service]["command"])


def of_role(role: str) -> list[str]:
    return [name for name in SERVICES if arguments_of(name)[0] == role]


def test_what_builds_is_not_in_what_runs() -> None:
    every = stages()
    assert len(every) > 1
    for step in every[-1]:
        assert not re.search(r"\b(pip|apt-get|gcc)\b", step.text), step
        if step.name in ("COPY", "ADD"):
            assert step.text.startswith("--from="), "the sources stay in another stage"


def test_every_stage_begins_at_the_same_base() -> None:
    named = {step[0].text.split()[-1] for step in stages() if " AS " in step[0].text}
    bases = {step[0].text.split()[0] for step in stages()} - named
    assert bases == {"python:3.11-slim-bookworm"}


def test_dependencies_are_installed_before_the_sources_are_copied() -> None:
    (before,) = (stage for stage in stages() if any("requirements.txt" in s.text and "install" in
                                                    s.text for s in stage))  # fmt: skip
    assert not [step for step in before if step.name == "COPY" and "--from" not in step.text]


def test_the_image_runs_penstock_without_root() -> None:
    assert final("USER") not in ("root", "0")
    assert json.loads(final("ENTRYPOINT")) == ["penstock"]
    assert json.loads(final("CMD")) == ["--help"]


def test_the_health_check_of_the_image_is_a_command_that_there_is() -> None:
    command = json.loads(final("HEALTHCHECK").partition("CMD")[2])
    assert command[0] == "penstock"
    assert parsed(command[1:])["announced"] == ""
    # What it asks for without an option, and where the daemons say it without one.
    assert "PENSTOCK_ANNOUNCE=" in final("ENV")
    for role in ("dispatcher", "worker"):
        (option,) = (p for p in commands()[role].params if p.name == "announce")
        assert option.envvar == "PENSTOCK_ANNOUNCE"


def test_volumes_are_made_for_the_user_before_they_are_declared() -> None:
    steps = stages()[-1]
    volumes = json.loads(final("VOLUME"))
    made = next(i for i, step in enumerate(steps) if "install --directory" in step.text)
    declared = next(i for i, step in enumerate(steps) if step.name == "VOLUME")
    assert made < declared
    assert all(volume in steps[made].text for volume in volumes)
    assert f"--owner {final('USER')}" in steps[made].text


def test_the_build_sees_every_package_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines()
             if line and not line.startswith("#")]  # fmt: skip
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert listed is not None
    packages = {name.partition(".")[2] for name in re.findall('"(.*?)"', listed[1])} - {""}
    files = {"pyproject.toml", "README.md", "*.py", "py.typed"}
    assert let_in == {name.partition(".")[0] for name in packages} | files
    for path in ROOT.glob("*.py"):
        assert any(fnmatch.fnmatch(path.name, rule) for rule in let_in)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_checked_restarted_and_closed_to_others(service: str) -> None:
    spec = SERVICES[service]
    check = spec["healthcheck"]["test"]
    assert check[:2] == ["CMD", "penstock"]
    parsed(check[2:])
    assert spec["restart"] == "unless-stopped"
    for port in spec.get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_a_command_that_keeps_its_state_in_a_volume(service: str) -> None:
    arguments = arguments_of(service)
    options = parsed(arguments)
    kept = options["journal" if arguments[0] == "dispatcher" else "checkpoint_dir"]
    assert kept in json.loads(final("VOLUME"))
    volumes = dict(volume.split(":")[1::-1] for volume in SERVICES[service]["volumes"])
    named = yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"]
    assert volumes[kept] in named
    assert options["host"] == "0.0.0.0"
    assert str(options["port"]) in final("EXPOSE").split()


def test_the_cluster_is_whole() -> None:
    dispatchers, workers = of_role("dispatcher"), of_role("worker")
    assert len(dispatchers) == 2
    assert len({parsed(arguments_of(name))["journal"] for name in dispatchers}) == 1
    # Whichever of the two is started again must wait for the other one.
    assert all(parsed(arguments_of(name))["standby"] for name in dispatchers)
    addresses = {f"{name}:{parsed(arguments_of(name))['port']}" for name in dispatchers}
    standbys = 0
    for name in workers:
        options = parsed(arguments_of(name))
        assert set(options["dispatcher"].split(",")) == addresses
        assert options["advertise"] == name, "the name that leads to it on the network"
        standbys += options["standby"]
    assert (len(workers) - standbys, standbys) == (3, 1)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_waited_for_is_there_and_healthy(service: str) -> None:
    for name, how in SERVICES[service].get("depends_on", {}).items():
        assert name in SERVICES
        assert how == {"condition": "service_healthy"}
