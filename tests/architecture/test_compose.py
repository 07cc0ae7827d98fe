"""docker-compose.yml against the code: no Docker engine is needed to see that they have not drifted apart."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis as client
import yaml

from cli.engine_plan import devices, plan
from cli.launch import redis
from core import errors
from core.settings import FILE_SUFFIX, PREFIX, Settings
from jobs import queue
from tests import children

ROOT = Path(__file__).parents[2]
OWN = ("migrate", "api", "worker", "delivery")
#: What each process needs, and what no other one is given.
SECRETS = {
    "postgres": {"postgres_password"},
    "redis": {"redis.conf"},
    "migrate": {"database_url"},
    "api": {"database_url", "redis_url", "pepper", "vault_key", "outbound_proxy"},
    "worker": {"database_url", "redis_url", "engine_api_key"},
    "delivery": {"database_url", "redis_url", "vault_key", "outbound_proxy"},
    "engine": {"engine_api_key"},
    "engine-cpu": {"engine_api_key"},
    "model": {"hf_token"},
    "model-folder": set(),
}
#: Settings that a container does not take from ``.env``: of the image, of the network, of the command line, of
#: `longlook up`.
FIXED = {
    *("home", "host", "port", "metrics_host", "metrics_port", "revision", "engine_python"),
    *("url", "api_key", "bootstrap_key"),
}
MOUNTED = "/run/secrets/"
TEXT = (ROOT / "docker-compose.yml").read_text()
#: Gives each image a digest of its own.
FAKE_DOCKER = """#!/bin/sh
for image; do :; done
printf '{"digest": "sha256:%s"}' "$(printf %s "$image" | sha256sum | cut -d ' ' -f 1)"
"""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(TEXT)["services"]
    return services


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the secrets as `make secrets` makes them."""
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run([sys.executable, ROOT / "deploy" / "make_secrets.py", folder], check=True)
    return folder


def given(service: dict[str, Any], secrets: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a service as Compose makes it of ``variables`` in ``.env``, with secrets elsewhere."""
    from_file = variables if "env_file" in service else {}
    return from_file | {
        name: interpolated(value, variables).replace(MOUNTED, f"{secrets}/")
        for name, value in service["environment"].items()
    }


def interpolated(value: str, variables: Mapping[str, str]) -> str:
    """Return ``value`` with its variables filled in, or at their defaults."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], value)


def defaulted(value: str) -> str:
    """Return ``value`` with its variables at their defaults."""
    return interpolated(value, {})


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
        "model",
        "model-folder",
    }
    assert services["engine"]["profiles"] == ["gpu"]
    assert services["engine-cpu"]["profiles"] == ["cpu"]


@pytest.mark.parametrize("service", OWN)
def test_every_variable_is_a_setting(services: dict[str, Any], secrets: Path, service: str) -> None:
    settings = Settings.read(given(services[service], secrets))

    assert settings.database.startswith("postgresql://longlook:")
    assert ("redis_url" in settings.model_fields_set) == (service != "migrate")


def test_each_process_has_the_secrets_that_it_needs_and_no_other_one(
    services: dict[str, Any],
) -> None:
    held = {name: set(service.get("secrets", ())) for name, service in services.items()}
    read = {
        name: set(re.findall(rf"{MOUNTED}([\w.]+)", yaml.safe_dump(service)))
        for name, service in services.items()
    }

    assert held == SECRETS
    assert read == held
    assert set(yaml.safe_load(TEXT)["secrets"]) == set().union(*held.values())


def test_every_setting_reaches_every_process_that_reads_it(
    services: dict[str, Any], secrets: Path
) -> None:
    expected = {
        f"{PREFIX}{name.upper()}": f"<{name}>"
        for name in set(Settings.model_fields) - FIXED - Settings.secret_names()
    }
    for name in (*OWN, "engine-cpu"):
        environment = given(services[name], secrets, **expected)
        assert expected.items() <= environment.items(), name
    engines = {"LONGLOOK_ENGINE_URLS": "http://a:1,http://b:1"}
    assert engines.items() <= given(services["worker"], secrets, **engines).items()


def test_a_name_that_is_no_setting_is_refused_before_anything_starts(
    services: dict[str, Any], secrets: Path
) -> None:
    variables = {"LONGLOOK_RETENTION_IMAGES_DAYS": "30", "LONGLOOK_BIND": "0.0.0.0"}  # noqa: S104 - only a value

    with pytest.raises(errors.SettingsError) as refusal:
        Settings.read(given(services["migrate"], secrets, **variables))

    assert (
        str(refusal.value).splitlines() == [f"{name}: no such setting" for name in variables][::-1]
    )
    assert services["migrate"]["env_file"] == [{"path": ".env", "required": False}]
    # The others get no arbitrary contents of that file.
    assert {name for name, service in services.items() if "env_file" in service} == {"migrate"}


def test_only_settings_of_the_service_begin_as_settings() -> None:
    named = set(re.findall(rf"{PREFIX}\w+", TEXT + (ROOT / "deploy" / "env.example").read_text()))
    settings = {name.removeprefix(PREFIX).lower() for name in named - {PREFIX}}

    assert {
        name for name in settings if name.removesuffix(FILE_SUFFIX) not in Settings.model_fields
    } == set()


@pytest.mark.parametrize(
    ("secret", "holders"),
    [
        ("database_url", {"migrate", "api", "worker", "delivery"}),
        ("redis_url", {"api", "worker", "delivery"}),
        ("pepper", {"api"}),
        ("vault_key", {"api", "delivery"}),
        ("engine_api_key", {"worker", "engine-cpu"}),
        ("outbound_proxy", {"api", "delivery"}),
    ],
)
def test_a_secret_in_the_file_of_settings_is_refused_by_its_holders_and_reaches_no_other(
    services: dict[str, Any], secrets: Path, secret: str, holders: set[str]
) -> None:
    name, value = f"{PREFIX}{secret.upper()}", "misplaced-" + secret
    for process in (*OWN, "engine-cpu"):
        environment = given(services[process], secrets, **{name: value})
        if process in holders:
            with pytest.raises(errors.SettingsError, match=f"{name}_FILE: {name} is set, too"):
                Settings.read(environment)
        else:
            assert value not in environment.values(), process


def test_no_secret_is_in_an_environment_or_an_argument(services: dict[str, Any]) -> None:
    secret = {f"{PREFIX}{name.upper()}" for name in Settings.secret_names()} - {
        "LONGLOOK_ENGINE_URLS"
    }
    for service in services.values():
        environment = service.get("environment", {})
        # One that is in `.env` must meet its file, so that it is refused.
        allowed = {name: f"${{{name}:-}}" for name in secret if f"{name}_FILE" in environment}
        assert {environment[name] for name in secret & set(environment)} <= {*allowed.values(), ""}
    assert not re.search(r"PASSWORD: |HF_TOKEN: |--api-key|requirepass", TEXT)


def test_secrets_are_made_once_and_fit_together(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([sys.executable, ROOT / "deploy" / "make_secrets.py", secrets], check=True)
    after = {path.name: path.read_text() for path in secrets.iterdir()}

    assert after == before
    declared = set(yaml.safe_load(TEXT)["secrets"])
    assert declared == after.keys() - {"redis_password"}
    assert before["postgres_password"].strip() in before["database_url"]
    assert before["redis_password"].strip() in before["redis_url"]
    assert before["redis.conf"] == f"requirepass {before['redis_password']}"
    optional = {"hf_token", "outbound_proxy"}
    assert {before[name].strip() for name in optional} == {""}
    made = {content for name, content in before.items() if name not in optional}
    assert len(made) == len(before) - len(optional)
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_redis_refuses_clients_without_its_password(
    services: dict[str, Any], secrets: Path, short_folder: Path
) -> None:
    _, *arguments = [part.replace(MOUNTED, f"{secrets}/") for part in services["redis"]["command"]]
    path = short_folder / "redis.sock"
    command = [next(redis.bundled()), *arguments, "--port", "0", "--unixsocket", path]
    server = children.spawn(command, folder=short_folder)
    try:
        with client.Redis(unix_socket_path=str(path)) as stranger:
            children.wait_until(path.exists, server, log=short_folder / "log")
            with pytest.raises(client.AuthenticationError):
                stranger.ping()
        password = (secrets / "redis_password").read_text().strip()
        with client.Redis(unix_socket_path=str(path), password=password) as known:
            assert known.ping()
    finally:
        children.stop(server, signal.SIGKILL)


def test_every_process_is_confined_and_limited(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}, name
        assert service["mem_limit"], name
        assert service["pids_limit"] > 0, name
        assert not service.get("privileged"), name
    added = {name: service["cap_add"] for name, service in services.items() if "cap_add" in service}
    assert added == {"model-folder": ["CHOWN", "DAC_READ_SEARCH"]}
    writable = {name for name, service in services.items() if not service.get("read_only")}
    assert writable == {"engine", "engine-cpu"}


def test_nothing_that_stays_runs_as_root(services: dict[str, Any]) -> None:
    root = {name for name, service in services.items() if service.get("user", "").startswith("0")}
    assert root == {"model-folder"}
    assert services["model-folder"]["network_mode"] == "none"
    for name in ("postgres", "redis", "engine", "model"):
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", services[name]["user"])
    for dockerfile in ("Dockerfile", "Dockerfile.engine-cpu"):
        assert "USER longlook" in (ROOT / "deploy" / dockerfile).read_text()


def test_only_those_reach_out_that_have_to(services: dict[str, Any]) -> None:
    networks = yaml.safe_load(TEXT)["networks"]

    assert networks["data"] == {"internal": True}
    assert defaulted(networks["engines"]["internal"]) == "true"
    outside = {name for name, one in services.items() if "outside" in one.get("networks", ())}
    assert outside == {"api", "delivery", "model"}
    assert {name for name, service in services.items() if "ports" in service} == {"api"}


def test_every_foreign_image_can_be_pinned(services: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "docker").write_text(FAKE_DOCKER)
    (tmp_path / "docker").chmod(0o755)
    pinned = tmp_path / "images.env"
    subprocess.run(
        [sys.executable, ROOT / "deploy" / "pin_images.py", pinned],
        check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    lines = dict(line.split("=", 1) for line in pinned.read_text().splitlines())

    named = {service["image"] for service in services.values()}
    named |= {
        value
        for one in services.values()
        for value in (one.get("build") or {}).get("args", {}).values()
    }
    foreign = {re.match(r"\$\{(\w+_IMAGE):-", name) for name in named if "_IMAGE" in name}
    assert {found[1] for found in foreign if found} == lines.keys()
    assert {name for name in named if ":" in name and "${" not in name} == set()
    assert all(
        re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", line) for line in lines.values()
    )
    # The tag of SGLang names one version.
    unpinned = {name for name in named if "_IMAGE" in name and "@sha256:" not in name}
    assert unpinned == {"${SGLANG_IMAGE:-lmsysorg/sglang:v0.5.23}"}
    for dockerfile, variable in (
        ("Dockerfile", "PYTHON_IMAGE"),
        ("Dockerfile.engine-cpu", "ENGINE_PYTHON_IMAGE"),
    ):
        text = (ROOT / "deploy" / dockerfile).read_text()
        [default] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
        assert f"${{{variable}:-{default}}}" in named
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


@pytest.mark.parametrize("answer", ["exit 1", "echo '{}'", 'echo \'{"digest": "latest"}\''])
def test_an_image_that_cannot_be_looked_up_leaves_the_pins_alone(
    tmp_path: Path, answer: str
) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "docker").chmod(0o755)
    pinned = tmp_path / "images.env"
    pinned.write_text("as it was")

    ended = subprocess.run(
        [sys.executable, ROOT / "deploy" / "pin_images.py", pinned],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert pinned.read_text() == "as it was"


def test_a_worker_is_given_longer_than_its_drain(services: dict[str, Any]) -> None:
    drain = float(defaulted(services["worker"]["environment"]["LONGLOOK_DRAIN_SECONDS"]))
    grace = float(defaulted(services["worker"]["stop_grace_period"]).removesuffix("s"))

    assert grace >= drain + 30


def test_the_delivery_process_is_given_longer_than_a_try_and_cannot_reach_the_engines(
    services: dict[str, Any],
) -> None:
    grace = float(defaulted(services["delivery"]["stop_grace_period"]).removesuffix("s"))

    assert grace >= Settings.read({}).webhook_seconds + 30
    assert "engines" not in services["delivery"]["networks"]


def test_order_goes_by_health(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    for name in ("api", "worker", "delivery"):
        needs = services[name]["depends_on"]
        assert needs["migrate"] == {"condition": "service_completed_successfully"}
    assert {name for name in services if "healthcheck" not in services[name]} == {
        "migrate",
        "model",
        "model-folder",
    }


@pytest.mark.parametrize("name", ["worker", "delivery"])
def test_the_sign_of_life_is_looked_for_where_it_is_given(
    services: dict[str, Any], name: str
) -> None:
    port = services[name]["environment"]["LONGLOOK_METRICS_PORT"]

    assert f"http://127.0.0.1:{port}/metrics" in services[name]["healthcheck"]["test"][-1]


def test_the_gpu_engine_has_the_flags_of_longlook_engine(services: dict[str, Any]) -> None:
    h200 = devices.Device(name="NVIDIA H200", memory=140.4)
    settings = Settings.read(
        {"LONGLOOK_MODEL": "qvq-72b-preview", "LONGLOOK_ENGINE_API_KEY": "secret"}
    )
    chosen = plan.plan([h200, h200], settings, host="0.0.0.0", port=30000)  # noqa: S104 - inside its container

    engine = services["engine"]
    command = [defaulted(part) for part in engine["command"]]
    environment = {
        name: value
        for name, value in engine["environment"].items()
        if not name.startswith("HF_") and name != "HOME"
    }
    launcher, *flags = chosen.arguments

    assert command == ["python3", "/longlook/launcher.py", *flags]
    assert f"./{Path(launcher).relative_to(ROOT)}:/longlook/launcher.py:ro" in engine["volumes"]
    key = environment.pop("LONGLOOK_ENGINE_API_KEY_FILE")
    assert key == f"{MOUNTED}engine_api_key"
    assert environment | {"LONGLOOK_ENGINE_API_KEY": "secret"} == chosen.environment


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


@pytest.mark.parametrize(
    ("name", "wakeup"), [("worker", queue.REASON), ("delivery", queue.DELIVER)]
)
def test_a_subscriber_receives_the_wakeups_that_are_sent(
    services: dict[str, Any], secrets: Path, name: str, wakeup: str
) -> None:
    command = services[name]["command"]
    assert (command[0], command[1], command[3]) == ("celery", "-A", "worker")
    assert not {"-Q", "--queues", "-P", "--pool"}.intersection(command)

    woken = ran(
        given(services[name], secrets),
        *(sys.executable, "-c"),
        f"from {command[2]} import app; "
        "print(app.conf.worker_pool, *(queue.name for queue in app.conf.task_queues))",
    )

    assert woken.split() == ["threads", wakeup]


def test_the_api_is_what_gunicorn_finds(services: dict[str, Any], secrets: Path) -> None:
    program, *words = services["api"]["command"]

    ran(given(services["api"], secrets), ROOT / ".venv" / "bin" / program, "--check-config", *words)


def test_the_schema_is_brought_about_by_a_command_that_exists(
    services: dict[str, Any], secrets: Path
) -> None:
    program, *words = services["migrate"]["command"]

    shown = ran(
        given(services["migrate"], secrets), ROOT / ".venv" / "bin" / program, *words, "--help"
    )

    assert "schema" in shown


def ran(environment: dict[str, str], *command: str | Path) -> str:
    """Return what a program says that runs here with the environment of a service, and ends well."""
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": os.defpath, **environment},
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


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.engine-cpu"])
def test_an_image_has_every_package_of_the_product(dockerfile: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    text = (ROOT / "deploy" / dockerfile).read_text()

    copied = {target for target in packages if f"COPY {target} {target}\n" in text}
    assert copied == set(packages)


def test_docker_compose_itself_accepts_it(secrets: Path) -> None:
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
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "SECRETS_FOLDER": str(secrets)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
