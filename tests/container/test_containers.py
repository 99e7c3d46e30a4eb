"""The image as it is used: daemons in containers, killed, paused, stopped, removed."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from .conftest import DEADLINE_S, DOCKER, IMAGE, JOURNAL, LABEL, Container, Site, docker

pytestmark = pytest.mark.timeout(900)

ELEMENTS = 20_000
#: Reads in two parts, and goes on with the second when it is told to: what happens in between
#: happens in the middle. 8 KiB an element, so that what is on the way is a small part of it.
TRAINER = f"""
import sys, tensorflow as tf, penstock
dataset = tf.data.Dataset.range({ELEMENTS}).map(lambda i: (i, tf.fill([1024], i)))
served = iter(dataset.apply(penstock.distribute(sys.argv[1], job_name="boxed", seed=3)))
seen = [int(next(served)[0]) for _ in range(200)]
print("began", flush=True)
sys.stdin.readline()
seen += [int(i) for i, _ in served]
print("exact" if sorted(seen) == list(range({ELEMENTS})) else f"WRONG: {{len(seen)}}", flush=True)
"""
BOTH = "dispatcher-1:5050,dispatcher-2:5050"


def start_dispatcher(site: Site, name: str, *more: str) -> Container:
    return site.start(
        name, "dispatcher", "--host=0.0.0.0", f"--journal={JOURNAL}", *more, journal=JOURNAL
    )


def start_worker(site: Site, name: str, dispatchers: str, *more: str) -> Container:
    return site.start(
        name, "worker", f"--dispatcher={dispatchers}", "--host=0.0.0.0", "--port=5051",
        f"--advertise={name}", "--checkpoint-dir=/var/lib/penstock/checkpoints", *more,
        checkpoints="/var/lib/penstock/checkpoints",
    )  # fmt: skip


@contextlib.contextmanager
def trainer(site: Site, dispatchers: str) -> Iterator[subprocess.Popen[str]]:
    """A trainer that waits for a line when it has 200 elements."""
    with subprocess.Popen(
        [DOCKER, "run", "--rm", LABEL, "--interactive", "--no-healthcheck",
         f"--name={site.prefix}-train", f"--network={site.prefix}", "--entrypoint=python",
         IMAGE, "-c", TRAINER, dispatchers],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "began\n"
            yield process
        finally:
            docker("rm", "--force", f"{site.prefix}-train", check=False)
            process.kill()


def finish(process: subprocess.Popen[str]) -> None:
    """Lets the trainer read the rest, which must be all that there is, once."""
    said, _ = process.communicate("go on\n", timeout=DEADLINE_S)
    assert said == "exact\n"
    assert process.returncode == 0


def test_the_image_holds_what_runs_and_nothing_that_builds(site: Site) -> None:
    config = json.loads(docker("inspect", "--format={{json .Config}}", IMAGE))
    assert config["User"] == "penstock"
    assert config["Entrypoint"] == ["penstock"]
    assert set(config["Volumes"]) == {
        f"/var/lib/penstock/{name}" for name in ("journal", "checkpoints", "cache")
    }
    look = (
        "import importlib.util, os, pathlib, shutil, sys\n"
        "import penstock, sklearn\n"
        "home = pathlib.Path(penstock.__file__).parent\n"
        "print(os.getuid() > 0, importlib.util.find_spec('pip') is None, shutil.which('gcc'),\n"
        "      (home / 'tests').exists(), os.access(home, os.W_OK),\n"
        "      all(os.access(f'/var/lib/penstock/{name}', os.W_OK)\n"
        "          for name in ('journal', 'checkpoints', 'cache')))"
    )
    said = docker(
        "run", "--rm", LABEL, "--no-healthcheck", "--entrypoint=python", IMAGE, "-c", look
    )
    assert said == "True True None False False True"


def test_a_killed_worker_container_costs_nothing_and_stopping_is_clean(site: Site) -> None:
    dispatcher = start_dispatcher(site, "dispatcher-1")
    dispatcher.wait_healthy()
    workers = [start_worker(site, f"worker-{n}", "dispatcher-1:5050") for n in (1, 2)]
    for worker in workers:
        worker.wait_healthy()
    with trainer(site, "dispatcher-1:5050") as process:
        (victim,) = (
            entry
            for entry in site.status("dispatcher-1:5050")["workers"]
            if entry["address"] == "worker-1:5051"
        )
        assert victim["attempts"] > 0
        docker("kill", "--signal=KILL", workers[0].id)
        finish(process)
    states = {
        entry["address"]: entry["state"] for entry in site.status("dispatcher-1:5050")["workers"]
    }
    assert states == {"worker-1:5051": "lost", "worker-2:5051": "live"}
    for container in (workers[1], dispatcher):
        docker("stop", "--time=30", container.id)
        assert container.state()["ExitCode"] == 0, container.logs()
    assert "Traceback" not in workers[1].logs() + dispatcher.logs()


def test_a_worker_container_that_is_started_again_has_its_place_and_its_health(site: Site) -> None:
    start_dispatcher(site, "dispatcher-1").wait_healthy()
    worker = start_worker(site, "worker-1", "dispatcher-1:5050")
    worker.wait_healthy()
    with trainer(site, "dispatcher-1:5050") as process:
        docker("kill", "--signal=KILL", worker.id)
        docker("start", worker.id)
        finish(process)
    worker.wait_healthy()
    worker.pause()
    # The engine refuses to look into a paused container, so it is asked from beside.
    asked = docker(
        "run", "--rm", LABEL, "--no-healthcheck", f"--network={site.prefix}", IMAGE,
        "health", "--worker=worker-1:5051", check=False,
    )  # fmt: skip
    assert "did not answer" in asked
    docker("unpause", worker.id)
    worker.wait_healthy()


def test_a_journal_volume_outlives_its_container(site: Site) -> None:
    first = start_dispatcher(site, "dispatcher-1")
    first.wait_healthy()
    start_worker(site, "worker-1", "dispatcher-1:5050").wait_healthy()
    with trainer(site, "dispatcher-1:5050") as process:
        before = site.status("dispatcher-1:5050")
        first.remove()
        second = start_dispatcher(site, "dispatcher-1")
        second.wait_healthy()
        after = site.status("dispatcher-1:5050")
        assert after["term"] == before["term"] + 1
        assert [job["id"] for job in after["jobs"]] == [job["id"] for job in before["jobs"]]
        finish(process)


def test_a_standby_in_another_container_takes_over_the_volume(site: Site) -> None:
    first = start_dispatcher(site, "dispatcher-1", "--standby")
    first.wait_healthy()
    second = start_dispatcher(site, "dispatcher-2", "--standby")
    second.wait_healthy()
    assert '"role": "standby"' in second.run_inside("penstock", "health", "--json")
    start_worker(site, "worker-1", BOTH).wait_healthy()
    with trainer(site, BOTH) as process:
        docker("kill", "--signal=KILL", first.id)
        second.wait(lambda _: "serving at" in second.logs(), "serving")
        finish(process)
    assert '"role": "dispatcher"' in second.run_inside("penstock", "health", "--json")
    docker("start", first.id)  # as a restart policy would: it stands by now
    first.wait(lambda _: first.logs().count("waiting for the journal") > 0, "standing by")
    with trainer(site, BOTH) as process:
        second.pause()  # it cannot renew its lease
        first.wait(lambda _: first.logs().count("serving at") == 2, "serving")
        docker("unpause", second.id)
        assert second.wait_ended() == 6
        finish(process)
