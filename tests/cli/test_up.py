"""The parts of ``longlook up`` that work without processes: engines, environments, database, demo."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest

from cli import client, main
from cli.engine_plan.command import FlagReason, Plan
from cli.up import database, demo, engines, programs
from core import errors, peppers
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Role
from jobs.store import accounts
from tests.cli.commands import local
from tests.cli.fake_api import Canned, serving
from tests.e2e.stack import free_port
from webhooks import secrets
from worker.engines import pool

#: What the workers ask an engine for.
SERVER_INFO = {
    "served_model_name": "qvq-72b-preview",
    "version": "1",
    "max_running_requests": 8,
    "context_length": 4096,
}
BOOTSTRAP = "ll_" + "b" * 43


def settings_with(python: Path = Path(sys.executable), **fields: object) -> Settings:
    """Return settings whose engine runs under ``python``, so that no test needs the engine's environment."""
    return Settings.read({}, engine_python=python, **fields)


def test_the_default_engine_is_tiny_on_a_free_port() -> None:
    chosen = engines.choose(None, settings_with())
    assert chosen.plan is not None
    assert chosen.model == "tiny-qvq"
    assert chosen.urls[0].startswith("http://127.0.0.1:")


def test_engine_urls_of_the_environment_are_the_default() -> None:
    settings = Settings.read(
        {"LONGLOOK_ENGINE_URLS": "scripted:", "LONGLOOK_ENGINE_PYTHON": sys.executable}
    )
    assert engines.choose(None, settings).urls == ("scripted:",)
    assert engines.choose("tiny", settings).plan is not None


def test_the_scripted_engine_needs_no_process() -> None:
    chosen = engines.choose("scripted", Settings.read({}))
    assert (chosen.urls, chosen.plan) == (("scripted:",), None)


def test_a_missing_engine_environment_is_reported_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="longlook engine install"):
        engines.choose("tiny", settings_with(tmp_path / "python"))


@pytest.mark.parametrize("requested", ["gpu", "127.0.0.1:30000", ",", "ftp://x"])
def test_an_invalid_engine_is_an_error(requested: str) -> None:
    with pytest.raises(errors.SettingsError, match="--engine"):
        engines.choose(requested, Settings.read({}))


def test_an_unset_model_is_requested_from_the_engine() -> None:
    with serving({"GET /server_info": [Canned(200, SERVER_INFO)]}) as engine:
        requested = f"{engine.url},{engine.url}/"
        from_engine = engines.choose(requested, Settings.read({}))
        from_settings = engines.choose(requested, Settings.read({}, model="mine"))
    assert (from_engine.urls, from_engine.model) == ((engine.url, engine.url), "qvq-72b-preview")
    assert from_settings.model == "mine"


def test_engines_that_do_not_respond_cause_only_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert engines.choose(url, Settings.read({})).urls == (url,)
    assert "LONGLOOK_MODEL sets it" in capsys.readouterr().out


def test_each_engine_is_reported_ready_once(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"GET /server_info": [Canned(503), Canned(200, SERVER_INFO)]}
    with serving(answers) as engine:
        chosen = engines.EngineProcesses(
            urls=(engine.url, "scripted:", "scripted:?window=8"), model="tiny-qvq"
        )
        readiness = engines.Readiness(chosen, Settings.read({}))
        readiness.check()
        assert (readiness.any_ready, readiness.all_ready) == (True, False)
        readiness.check()
        readiness.check()
        assert readiness.all_ready
    printed = capsys.readouterr().out
    assert printed.count("engine ready") == 3
    assert f"tiny-qvq at {engine.url}" in printed


def test_an_engine_is_ready_only_if_the_workers_use_it_and_all_say_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another server than SGLang: healthy, and without the facts that the workers need.
    answers = {
        "GET /health": [Canned(200)],
        "GET /server_info": [Canned(200, {"name": "another"})],
        "GET /v1/models": [Canned(200, {"data": [{"id": "tiny-qvq"}]})],
    }
    with serving(answers) as engine:
        settings = Settings.read({}, engine_urls=engine.url)
        chosen = engines.EngineProcesses(urls=(engine.url,), model="tiny-qvq")
        readiness = engines.Readiness(chosen, settings, report_seconds=0)
        readiness.check()
        workers_pool = pool.build(settings, settings.profile)
        workers_pool.refresh()
        [state] = workers_pool.states() or ()
        workers_pool.close()
        _, printed = local(tmp_path, "doctor", "--json", LONGLOOK_ENGINE_URLS=engine.url)

    assert not readiness.any_ready
    assert (state.state, state.reason) == (
        "away",
        "The engine does not report its state in SGLang's format.",
    )
    assert str(state.reason) in capsys.readouterr().out
    [diagnosis] = [
        entry for entry in json.loads(printed) if entry["check"] == f"engine {engine.url}"
    ]
    assert (diagnosis["verdict"], diagnosis["detail"]) == ("missing", f"away: {state.reason}")


def test_programs_get_effective_settings_without_the_supervisors_secrets() -> None:
    environ = {
        "PATH": "/bin",
        "LONGLOOK_BOOTSTRAP_KEY": BOOTSTRAP,
        "LONGLOOK_API_KEY": BOOTSTRAP,
        "LONGLOOK_LEASE_SECONDS": "2",
        "LONGLOOK_PORT": "1",
    }
    settings = Settings.read(environ, home=Path("/home/ll"), flush_seconds=0.2)
    context = programs.ProgramContext(
        settings=settings,
        redis_url="unix:///r",
        engine_urls=("http://a", "http://b"),
        model="m",
        port=8700,
    )
    environment = context.environment(environ)
    assert BOOTSTRAP not in environment.values()
    assert environment["LONGLOOK_LEASE_SECONDS"] == "2"
    read = Settings.read(environment)
    assert (read.home, read.port, read.model) == (Path("/home/ll"), 8700, "m")
    assert read.flush_seconds == 0.2
    assert (read.redis_url, read.engine_urls) == ("unix:///r", ("http://a", "http://b"))
    assert read.database == "sqlite:////home/ll/longlook.db"
    delivery = programs.delivery(context, environ=environ | {"LONGLOOK_METRICS_PORT": "9700"})
    assert "webhooks.app" in delivery.command
    assert Settings.read(delivery.environment).metrics_port == 0
    assert delivery.stop_seconds > settings.webhook_seconds


def test_programs_read_secret_files_that_they_need(
    tmp_path: Path,
) -> None:
    (tmp_path / "pepper").write_text("p")
    (tmp_path / "url").write_text("sqlite:////elsewhere/longlook.db")
    (tmp_path / "key").write_text(BOOTSTRAP)
    environ = {
        "LONGLOOK_PEPPER_FILE": str(tmp_path / "pepper"),
        "LONGLOOK_DATABASE_URL_FILE": str(tmp_path / "url"),
        "LONGLOOK_BOOTSTRAP_KEY_FILE": str(tmp_path / "key"),
        "LONGLOOK_API_KEY_FILE": str(tmp_path / "key"),
    }
    settings = Settings.read(environ)
    context = programs.ProgramContext(
        settings=settings,
        redis_url="unix:///r",
        engine_urls=("http://a",),
        model="m",
        port=8700,
    )

    read = Settings.read(context.environment(environ))

    assert (read.pepper, read.database) == (settings.pepper, "sqlite:////elsewhere/longlook.db")
    assert (read.bootstrap_key, read.api_key) == (None, None)


def test_third_party_programs_get_none_of_the_settings() -> None:
    environ = {"PATH": "/bin", "LONGLOOK_PEPPER": "p"}
    plan = Plan(
        title="tiny-qvq on nothing",
        python=Path("/engine/python"),
        flags=(FlagReason("--port", "1", "a port"),),
        variables=(FlagReason("OMP_NUM_THREADS", "1", "one thread"),),
        extra=(),
    )
    engine = programs.engine(plan, environ=environ)
    assert engine.command == ("/engine/python", "-m", "sglang.launch_server", "--port", "1")
    assert engine.environment == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}
    assert programs.redis(("redis-server",), environ=environ).environment == {"PATH": "/bin"}


def test_a_first_start_creates_one_valid_admin_key(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)
    first = database.prepare(settings)
    assert first is not None
    assert first.generated
    assert client.key(settings) == first.key
    with contextlib.closing(Database(settings.database)) as opened:
        principal = accounts.authenticate(opened, first.key, peppers=peppers.read(settings))
    assert principal is not None
    assert principal.role is Role.ADMIN
    assert database.prepare(settings) is None
    assert client.key(settings) == first.key


def test_a_first_start_uses_the_bootstrap_key(tmp_path: Path) -> None:
    settings = Settings.read({"LONGLOOK_BOOTSTRAP_KEY": BOOTSTRAP}, home=tmp_path)
    assert database.prepare(settings) == database.FirstKey(BOOTSTRAP, generated=False)
    assert client.key(settings) == BOOTSTRAP


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LONGLOOK_BOOTSTRAP_KEY", "password"), ("LONGLOOK_DATABASE_URL", "sqlite:///here.db")],
)
def test_invalid_settings_are_reported_before_anything_is_created(
    tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(errors.SettingsError, match=variable) as raised:
        database.prepare(Settings.read({variable: value}, home=tmp_path))
    assert "password" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pepper_is_created_once_and_a_configured_one_takes_precedence(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)
    with pytest.raises(errors.SettingsError, match="LONGLOOK_PEPPER"):
        accounts.pepper(settings)
    made = peppers.ensure(settings)
    assert peppers.ensure(settings) == peppers.read(settings) == made
    assert (tmp_path / "pepper").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1
    assert accounts.pepper(Settings.read({}, home=tmp_path, pepper="given")) == b"given"


def test_a_missing_pepper_is_reported_and_not_replaced(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)
    database.prepare(settings)
    pepper = tmp_path / "pepper"
    made = pepper.read_text()
    pepper.unlink()

    with pytest.raises(errors.LaunchError, match="LONGLOOK_PEPPER"):
        database.prepare(settings)

    assert not pepper.exists()
    pepper.write_text("another")
    with pytest.raises(errors.LaunchError, match="another one than that of this database"):
        database.prepare(settings)
    pepper.unlink()
    pepper.touch()
    with pytest.raises(errors.LaunchError, match="LONGLOOK_PEPPER"):
        database.prepare(settings)
    assert database.prepare(Settings.read({}, home=tmp_path, pepper=made.strip())) is None


def test_the_demo_uses_an_existing_image() -> None:
    sample = demo.sample()
    assert sample.image.exists()
    assert sample.question.endswith("?")
    assert sample.truth


def test_every_command_can_be_imported_and_has_a_help_text() -> None:
    app = main.make_app(main.COMMANDS)
    registered = {command.name for command in app.registered_commands}
    registered |= {group.name for group in app.registered_groups}
    assert registered == set(main.COMMANDS)


@pytest.mark.parametrize("kept", [None, "another key"])
def test_a_vault_that_does_not_open_the_secrets_is_reported_and_not_replaced(
    tmp_path: Path, kept: str | None
) -> None:
    settings = Settings.read({}, home=tmp_path)
    database.prepare(settings)
    with contextlib.closing(Database(settings.database)) as opened:
        vault = secrets.installation_vault(settings, opened)
        secrets.signing_key(opened, make=lambda: secrets.new_pair(vault))
    assert database.prepare(settings) is None
    path = tmp_path / "vault"
    path.unlink()
    if kept is not None:
        path.write_text(kept)

    with pytest.raises(errors.LaunchError, match="webhook secrets of this database cannot be read"):
        database.prepare(settings)

    assert (path.read_text() if path.exists() else None) == kept
    with contextlib.closing(Database(settings.database)) as opened:
        lost = secrets.installation_vault(settings, opened)
        with pytest.raises(errors.VaultError):
            secrets.check_vault(lost, opened)
    assert (path.read_text() if path.exists() else None) == kept
