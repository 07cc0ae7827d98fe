"""docker-compose.yml against the code: no Docker engine is needed to see that they have not drifted apart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.engine import devices, plan
from jobs import queue
from jobs.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
SECRETS = {"POSTGRES_PASSWORD": "a", "LONGLOOK_PEPPER": "b", "LONGLOOK_VAULT_KEY": "c"}
#: Variables of the compose file alone: they size the containers, the service does not read them.
COMPOSE_ONLY = {
    "LONGLOOK_VERSION",
    "LONGLOOK_BIND",
    "LONGLOOK_ENGINE_TP",
    "LONGLOOK_ENGINE_MEMORY",
    "LONGLOOK_ENGINE_STREAMS",
}
TEXT = (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(TEXT)["services"]
    return services


def defaulted(value: str) -> str:
    """Return ``value`` with its variables at their defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_it_has_the_services_of_the_design(services: dict[str, Any]) -> None:
    assert set(services) == {
        "postgres",
        "redis",
        "migrate",
        "api",
        "worker",
        "delivery",
        "engine",
        "engine-cpu",
    }
    assert services["engine"]["profiles"] == ["gpu"]
    assert services["engine-cpu"]["profiles"] == ["cpu"]


@pytest.mark.parametrize("service", ["migrate", "api", "worker", "delivery"])
def test_every_variable_is_a_setting(services: dict[str, Any], service: str) -> None:
    environment = services[service]["environment"]
    values = {name: defaulted(value) for name, value in environment.items()}

    unknown = {
        name for name in values if name.removeprefix(PREFIX).lower() not in Settings.model_fields
    }

    assert unknown == set()
    assert Settings.read(values).database.startswith("postgresql://")


def test_every_variable_it_asks_for_is_known() -> None:
    asked = set(re.findall(r"\$\{(LONGLOOK_\w+)", TEXT)) - COMPOSE_ONLY

    assert {
        name for name in asked if name.removeprefix(PREFIX).lower() not in Settings.model_fields
    } == set()


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_stops_everything(secret: str) -> None:
    assert f"${{{secret}:?" in TEXT
    assert not re.search(rf"\${{{secret}(:-[^}}]*)?}}", TEXT)


def test_data_ports_are_bound_to_loopback(services: dict[str, Any]) -> None:
    for name in ("postgres", "redis"):
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    for name in ("engine", "engine-cpu", "worker", "delivery"):
        assert "ports" not in services[name]


def test_a_worker_is_given_longer_than_its_drain(services: dict[str, Any]) -> None:
    drain = float(services["worker"]["environment"]["LONGLOOK_DRAIN_SECONDS"])
    grace = float(services["worker"]["stop_grace_period"].removesuffix("s"))

    assert grace >= drain + 30


def test_the_delivery_process_is_given_longer_than_a_try_and_cannot_reach_the_engines(
    services: dict[str, Any],
) -> None:
    grace = float(services["delivery"]["stop_grace_period"].removesuffix("s"))

    assert grace >= Settings.read({}).webhook_seconds + 30
    assert "engines" not in services["delivery"]["networks"]


def test_order_goes_by_health(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    for name in ("api", "worker", "delivery"):
        needs = services[name]["depends_on"]
        assert needs["migrate"] == {"condition": "service_completed_successfully"}
    assert {name for name in services if "healthcheck" not in services[name]} == {"migrate"}


@pytest.mark.parametrize("name", ["worker", "delivery"])
def test_the_sign_of_life_is_looked_for_where_it_is_given(
    services: dict[str, Any], name: str
) -> None:
    port = services[name]["environment"]["LONGLOOK_METRICS_PORT"]

    assert f"http://127.0.0.1:{port}/metrics" in services[name]["healthcheck"]["test"][-1]


def test_the_gpu_engine_has_the_flags_of_longlook_engine(services: dict[str, Any]) -> None:
    h200 = devices.Device(name="NVIDIA H200", memory=140.4)
    settings = Settings.read({"LONGLOOK_MODEL": "qvq-72b-preview"})
    chosen = plan.plan([h200, h200], settings, host="0.0.0.0", port=30000)  # noqa: S104 - inside its container

    engine = services["engine"]
    command = [defaulted(part) for part in engine["command"]]
    environment = {
        name: value for name, value in engine["environment"].items() if not name.startswith("HF_")
    }

    assert command == ["python3", *chosen.arguments]
    assert environment == chosen.environment


def test_the_default_engine_is_the_one_of_the_cpu_profile(services: dict[str, Any]) -> None:
    url = defaulted(services["worker"]["environment"]["LONGLOOK_ENGINE_URLS"])

    assert url == "http://engine-cpu:30000"
    assert "engines" in services["engine-cpu"]["networks"]


def test_commands_are_installed_or_named_by_the_image(services: dict[str, Any]) -> None:
    for name in ("migrate", "api", "worker", "delivery"):
        program = services[name]["command"][0]
        assert (ROOT / ".venv" / "bin" / program).exists(), program
    assert (ROOT / "deploy" / "Dockerfile").exists()
    assert (ROOT / "deploy" / "Dockerfile.engine-cpu").exists()


@pytest.mark.parametrize(("name", "bell"), [("worker", queue.REASON), ("delivery", queue.DELIVER)])
def test_who_hears_bells_hears_those_that_are_rung(
    services: dict[str, Any], name: str, bell: str
) -> None:
    command = services[name]["command"]
    assert (command[0], command[1], command[3]) == ("celery", "-A", "worker")
    assert not {"-Q", "--queues", "-P", "--pool"}.intersection(command)

    heard = ran(
        services[name],
        *(sys.executable, "-c"),
        f"from {command[2]} import app; "
        "print(app.conf.worker_pool, *(queue.name for queue in app.conf.task_queues))",
    )

    assert heard.split() == ["threads", bell]


def test_the_api_is_what_gunicorn_finds(services: dict[str, Any]) -> None:
    program, *words = services["api"]["command"]

    ran(services["api"], ROOT / ".venv" / "bin" / program, "--check-config", *words)


def test_the_schema_is_brought_about_by_a_command_that_exists(services: dict[str, Any]) -> None:
    program, *words = services["migrate"]["command"]

    shown = ran(services["migrate"], ROOT / ".venv" / "bin" / program, *words, "--help")

    assert "schema" in shown


def ran(service: dict[str, Any], *command: str | Path) -> str:
    """Return what a program says that runs here with the environment of a service, and ends well."""
    given = {name: defaulted(value) for name, value in service["environment"].items()}
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": os.defpath, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_dockerfiles_copy_what_exists() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    for dockerfile in ("Dockerfile", "Dockerfile.engine-cpu"):
        for line in (ROOT / "deploy" / dockerfile).read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), source
                    assert any(f"!{part}" in ignored for part in (source, source.split("/")[0])), (
                        source
                    )


def test_docker_compose_itself_accepts_it() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no docker compose client here; the file is parsed by the tests above")
    finished = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--quiet"],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **SECRETS},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
