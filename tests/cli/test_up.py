"""What ``longlook up`` works out before it starts anything."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli import client, main
from cli.launch.engine import EngineRoom
from cli.up import database, demo, engines, programs
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Role
from jobs.store import accounts
from tests.cli.fake_api import Canned, serving

BOOTSTRAP = "ll_" + "b" * 43


@dataclass(frozen=True)
class FakePlan:
    """An engine's command that nobody runs."""

    python: Path | None
    title: str = "tiny-qvq on nothing"
    arguments: tuple[str, ...] = ("-m", "engine")
    environment: dict[str, str] = field(default_factory=lambda: {"OMP_NUM_THREADS": "1"})


def room(python: Path | None = None) -> EngineRoom:
    return EngineRoom(plan=lambda _settings, _port: FakePlan(python), devices=lambda _environ: ())


def test_without_a_wish_the_engine_is_our_own_small_one_on_a_free_port() -> None:
    chosen = engines.choose(None, Settings.read({}), room=room())
    assert chosen.plan is not None
    assert chosen.model == "tiny-qvq"
    assert chosen.urls[0].startswith("http://127.0.0.1:")


def test_engines_of_the_environment_are_used_when_no_flag_says_otherwise() -> None:
    settings = Settings.read({"LONGLOOK_ENGINE_URLS": "scripted:"})
    assert engines.choose(None, settings, room=room()).urls == ("scripted:",)
    assert engines.choose("tiny", settings, room=room()).plan is not None


def test_the_scripted_engine_needs_no_process() -> None:
    chosen = engines.choose("scripted", Settings.read({}), room=room())
    assert (chosen.urls, chosen.plan) == (("scripted:",), None)


def test_a_missing_engine_environment_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="longlook engine install"):
        engines.choose("tiny", Settings.read({}), room=room(tmp_path / "python"))


@pytest.mark.parametrize("requested", ["gpu", "127.0.0.1:30000", ",", "ftp://x"])
def test_a_wish_that_means_nothing_is_told(requested: str) -> None:
    with pytest.raises(errors.SettingsError, match="--engine"):
        engines.choose(requested, Settings.read({}), room=room())


def test_the_model_is_asked_for_where_it_is_not_set() -> None:
    with serving(
        {"GET /v1/models": [Canned(200, {"data": [{"id": "qvq-72b-preview"}]})]}
    ) as engine:
        requested = f"{engine.url},{engine.url}/"
        found = engines.choose(requested, Settings.read({}), room=room())
        reported = engines.choose(requested, Settings.read({}, model="mine"), room=room())
    assert (found.urls, found.model) == ((engine.url, engine.url), "qvq-72b-preview")
    assert reported.model == "mine"


def test_engines_that_do_not_answer_are_a_warning_only(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert engines.choose(url, Settings.read({}), room=room()).urls == (url,)
    assert "LONGLOOK_MODEL sets it" in capsys.readouterr().out


def test_each_engine_is_said_to_be_ready_once(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"GET /health": [Canned(503), Canned(200)]}
    with serving(answers) as engine:
        chosen = engines.EngineProcesses(urls=(engine.url, "scripted:"), model="tiny-qvq")
        readiness = engines.Readiness(chosen, Settings.read({}))
        readiness.look()
        assert (readiness.any_ready, readiness.all_ready) == (True, False)
        readiness.look()
        readiness.look()
        assert readiness.all_ready
    printed = capsys.readouterr().out
    assert printed.count("engine ready") == 2
    assert f"tiny-qvq at {engine.url}" in printed


def test_the_services_environment_is_definite_and_without_the_supervisors_secrets() -> None:
    environ = {
        "PATH": "/bin",
        "LONGLOOK_BOOTSTRAP_KEY": BOOTSTRAP,
        "LONGLOOK_API_KEY": BOOTSTRAP,
        "LONGLOOK_LEASE_SECONDS": "2",
        "LONGLOOK_PORT": "1",
    }
    settings = Settings.read(environ, home=Path("/home/ll"), flush_seconds=0.2)
    wiring = programs.ProgramContext(
        settings=settings,
        redis_url="unix:///r",
        engine_urls=("http://a", "http://b"),
        model="m",
        port=8700,
    )
    reported = wiring.environment(environ)
    assert BOOTSTRAP not in reported.values()
    assert reported["LONGLOOK_LEASE_SECONDS"] == "2"
    read = Settings.read(reported)
    assert (read.home, read.port, read.model) == (Path("/home/ll"), 8700, "m")
    assert read.flush_seconds == 0.2
    assert (read.redis_url, read.engine_urls) == ("unix:///r", ("http://a", "http://b"))
    assert read.database == "sqlite:////home/ll/longlook.db"
    delivery = programs.delivery(wiring, environ=environ | {"LONGLOOK_METRICS_PORT": "9700"})
    assert "webhooks.app" in delivery.command
    assert Settings.read(delivery.environment).metrics_port == 0
    assert delivery.stop_seconds > settings.webhook_seconds


def test_files_of_secrets_reach_the_services_that_need_them_and_contradict_nothing(
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
    wiring = programs.ProgramContext(
        settings=settings,
        redis_url="unix:///r",
        engine_urls=("http://a",),
        model="m",
        port=8700,
    )

    read = Settings.read(wiring.environment(environ))

    assert (read.pepper, read.database) == (settings.pepper, "sqlite:////elsewhere/longlook.db")
    assert (read.bootstrap_key, read.api_key) == (None, None)


def test_programs_that_are_not_ours_get_none_of_our_settings() -> None:
    environ = {"PATH": "/bin", "LONGLOOK_PEPPER": "p"}
    engine = programs.engine(FakePlan(Path("/engine/python")), environ=environ)
    assert engine.command == ("/engine/python", "-m", "engine")
    assert engine.environment == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}
    assert programs.redis(("redis-server",), environ=environ).environment == {"PATH": "/bin"}


def test_a_first_start_makes_one_admin_key_that_works(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)
    first = database.prepare(settings)
    assert first is not None
    assert first.made
    assert client.key(settings) == first.key
    with contextlib.closing(Database(settings.database)) as opened:
        principal = accounts.authenticate(opened, first.key, pepper=accounts.pepper(settings))
    assert principal is not None
    assert principal.role is Role.ADMIN
    assert database.prepare(settings) is None
    assert client.key(settings) == first.key


def test_a_first_start_takes_the_bootstrap_key(tmp_path: Path) -> None:
    settings = Settings.read({"LONGLOOK_BOOTSTRAP_KEY": BOOTSTRAP}, home=tmp_path)
    assert database.prepare(settings) == database.FirstKey(BOOTSTRAP, made=False)
    assert client.key(settings) == BOOTSTRAP


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LONGLOOK_BOOTSTRAP_KEY", "password"), ("LONGLOOK_DATABASE_URL", "sqlite:///here.db")],
)
def test_what_cannot_work_is_told_before_anything_is_made(
    tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(errors.SettingsError, match=variable) as reported:
        database.prepare(Settings.read({variable: value}, home=tmp_path))
    assert "password" not in str(reported.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pepper_is_made_once_for_its_owner_and_one_that_is_set_wins(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)
    with pytest.raises(errors.SettingsError, match="LONGLOOK_PEPPER"):
        accounts.pepper(settings)
    made = accounts.ensure_pepper(settings)
    assert accounts.ensure_pepper(settings) == accounts.pepper(settings) == made
    assert (tmp_path / "pepper").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1
    assert accounts.pepper(Settings.read({}, home=tmp_path, pepper="given")) == b"given"


def test_a_pepper_that_is_gone_is_told_and_not_made_anew(tmp_path: Path) -> None:
    settings = Settings.read({}, home=tmp_path)
    database.prepare(settings)
    pepper = tmp_path / "pepper"
    made = pepper.read_text()
    pepper.unlink()

    with pytest.raises(errors.LaunchError, match="LONGLOOK_PEPPER"):
        database.prepare(settings)

    assert not pepper.exists()
    pepper.touch()
    with pytest.raises(errors.LaunchError, match="LONGLOOK_PEPPER"):
        database.prepare(settings)
    assert database.prepare(Settings.read({}, home=tmp_path, pepper=made.strip())) is None


def test_the_demo_asks_about_a_picture_that_is_there() -> None:
    sample = demo.sample()
    assert sample.image.exists()
    assert sample.question.endswith("?")
    assert sample.truth


def test_every_command_can_be_imported_and_explains_itself() -> None:
    app = main.make_app(main.COMMANDS)
    registered = {command.name for command in app.registered_commands}
    registered |= {group.name for group in app.registered_groups}
    assert registered == set(main.COMMANDS)
