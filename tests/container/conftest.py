"""Containers of the image that PENSTOCK_IMAGE names, on a network of the test's own.

Without an engine and an image there is nothing to test here; `.ci/container` makes both.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("PENSTOCK_IMAGE", "")
#: On everything that is made here, so that `.ci/container` finds what a killed run left.
LABEL = "--label=penstock.ci"
JOURNAL = "/var/lib/penstock/journal"
#: Nothing here should take a twentieth of it, but the machine may be busy.
DEADLINE_S = 300.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not IMAGE:
        for item in items:
            if "tests/container/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="PENSTOCK_IMAGE names no image"))


def docker(*arguments: str, check: bool = True, timeout_s: float = DEADLINE_S) -> str:
    """Runs the engine's client and returns what it printed, both streams together."""
    result = subprocess.run(
        [DOCKER, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert not check or result.returncode == 0, f"docker {arguments[0]}: {result.stdout}"
    return result.stdout.strip()


class Container:
    """A container: its name here is its name on the network, too.

    Args:
        site: whose network it is on.
        name: of the container.
        options: of `docker run`.
        arguments: of the image.
    """

    def __init__(
        self, site: Site, name: str, options: tuple[str, ...], arguments: tuple[str, ...]
    ) -> None:
        self.name = name
        self.id = f"{site.prefix}-{name}"
        docker(
            "run", "--detach", LABEL, f"--name={self.id}", f"--network={site.prefix}",
            f"--network-alias={name}", "--health-interval=3s", *options, IMAGE, *arguments,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What the engine knows of it: `Running`, `ExitCode`, `Health`, …"""
        state: dict[str, Any] = json.loads(docker("inspect", "--format={{json .State}}", self.id))
        return state

    def logs(self) -> str:
        """What it has printed."""
        return docker("logs", self.id)

    def wait_healthy(self) -> float:
        """Waits until the health check says so; returns how long that took, in seconds."""
        began_s = time.monotonic()
        self.wait(lambda state: state["Health"]["Status"] == "healthy", "healthy")
        return time.monotonic() - began_s

    def wait(self, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Waits for a state; fails at once if the container ends on the way."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition(state := self.state()):
            assert state["Running"], f"{self.name} ended: {state}\n{self.logs()}"
            late = time.monotonic() > deadline_s
            assert not late, f"{self.name} is not {what}: {state}\n{self.logs()}"
            time.sleep(0.2)  # the engine tells of ends and health, not of every state waited for

    def wait_ended(self) -> int:
        """Waits for its end and returns the exit code."""
        return int(docker("wait", self.id))

    def pause(self) -> None:
        """Freezes it; `docker unpause` thaws it."""

        def frozen(state: dict[str, Any]) -> bool:
            # The kernel may refuse while a process waits for its disk, as one that syncs does.
            if not state["Paused"]:
                docker("pause", self.id, check=False)
            return bool(state["Paused"])

        self.wait(frozen, "paused")

    def run_inside(self, *command: str, check: bool = True) -> str:
        """Runs a command in it."""
        return docker("exec", self.id, *command, check=check)

    def remove(self) -> None:
        """Removes it, whatever it does; its anonymous volumes, too."""
        docker("rm", "--force", "--volumes", self.id)


class Site:
    """A network, volumes and containers, which end with the test."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._containers: list[Container] = []
        self._volumes: set[str] = set()
        docker("network", "create", LABEL, prefix)

    def start(
        self, name: str, *arguments: str, options: tuple[str, ...] = (), **volumes: str
    ) -> Container:
        """Starts `penstock ARGUMENTS`; `volumes` says which one is where: `journal="/path"`."""
        mounts = [f"--volume={self.volume(key)}:{path}" for key, path in volumes.items()]
        container = Container(self, name, (*mounts, *options), arguments)
        self._containers.append(container)
        return container

    def volume(self, key: str) -> str:
        """The name of a volume of this site; the engine makes it at its first use."""
        name = f"{self.prefix}-{key}"
        if name not in self._volumes:
            self._volumes.add(name)
            docker("volume", "create", LABEL, name)
        return name

    def status(self, dispatcher: str) -> dict[str, Any]:
        """What `penstock status --json` says, run in a container of its own."""
        said = docker(
            "run", "--rm", LABEL, "--no-healthcheck", f"--network={self.prefix}", IMAGE,
            "status", f"--dispatcher={dispatcher}", "--json", "--timeout=60",
        )  # fmt: skip
        picture: dict[str, Any] = json.loads(said.splitlines()[-1])
        return picture

    def close(self) -> None:
        """Removes everything; goes on where something is gone already."""
        for container in self._containers:
            with contextlib.suppress(AssertionError):
                container.remove()
        for volume in self._volumes:
            docker("volume", "rm", "--force", volume, check=False)
        docker("network", "rm", self.prefix, check=False)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(f"penstock-{os.getpid()}-{abs(hash(request.node.name)) % 10_000}")
    try:
        yield made
    finally:
        made.close()
