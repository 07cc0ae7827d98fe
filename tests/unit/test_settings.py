"""Settings: they are read once, report all faults together, and never show a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors, profiles
from core.settings import PREFIX, Settings

SECRETS = {
    "LONGLOOK_PEPPER": "geheim-1",
    "LONGLOOK_BOOTSTRAP_KEY": "geheim-2",
    "LONGLOOK_VAULT_KEY": "geheim-3",
    "LONGLOOK_API_KEY": "geheim-4",
    "LONGLOOK_ENGINE_API_KEY": "geheim-5",
    "LONGLOOK_DATABASE_URL": "postgresql://longlook:geheim-6@db/longlook",
    "LONGLOOK_REDIS_URL": "redis://:geheim-7@redis/0",
    "LONGLOOK_ENGINE_URLS": "http://user:geheim-8@engine",
    "LONGLOOK_OUTBOUND_PROXY": "http://user:geheim-9@proxy:3128",
}


def faults(**environ: str) -> list[str]:
    """Return the faults of an environment, line by line."""
    with pytest.raises(errors.SettingsError) as wrong:
        Settings.read({PREFIX + name.upper(): value for name, value in environ.items()})
    return str(wrong.value).splitlines()


def test_an_empty_environment_is_enough() -> None:
    settings = Settings.read({})

    assert settings.home == Path.home() / ".longlook"
    assert settings.database == f"sqlite:///{settings.home}/longlook.db"
    assert settings.port == 8700


def test_variables_set_fields_and_flags_win() -> None:
    environ = {"LONGLOOK_PORT": "9000", "LONGLOOK_LEASE_SECONDS": "6", "PATH": "/bin"}

    settings = Settings.read(environ, port=9001, host=None)

    assert (settings.port, settings.lease_seconds, settings.host) == (9001, 6.0, "127.0.0.1")


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.read({"LONGLOOK_PORT": "", "LONGLOOK_PEPPER": ""}).port == 8700


@pytest.mark.parametrize("value", ["9000", ""])
def test_an_unknown_variable_is_an_error(value: str) -> None:
    assert faults(prot=value) == ["LONGLOOK_PROT: no such setting"]


def test_the_test_suites_own_variables_are_not_the_services() -> None:
    assert Settings.read({"LONGLOOK_TEST_POSTGRES_URL": "x"}).port == 8700


def test_all_faults_are_reported_together() -> None:
    reported = faults(
        nope="1",
        port="many",
        log_format="xml",
        lease_seconds="0",
        engine_urls="ftp://engine",
        max_image_megapixels="1000",
        database_url="mysql://db",
        redis_url="http://redis",
    )

    assert {line.split(":")[0] for line in reported} == {
        "LONGLOOK_NOPE",
        "LONGLOOK_PORT",
        "LONGLOOK_LOG_FORMAT",
        "LONGLOOK_LEASE_SECONDS",
        "LONGLOOK_ENGINE_URLS",
        "LONGLOOK_MAX_IMAGE_MEGAPIXELS",
        "LONGLOOK_DATABASE_URL",
        "LONGLOOK_REDIS_URL",
    }


def test_a_fault_never_shows_the_value() -> None:
    reported = faults(
        port="geheim",
        log_level="geheim",
        engine_urls="geheim",
        database_url="geheim",
        redis_url="geheim",
        lease_seconds="geheim",
    )

    assert len(reported) == 6
    assert "geheim" not in "".join(reported)


@pytest.mark.parametrize("value", ["inf", "nan", "-1"])
def test_a_length_of_time_is_a_number_of_seconds(value: str) -> None:
    assert [line.split(":")[0] for line in faults(lease_seconds=value)] == [
        "LONGLOOK_LEASE_SECONDS"
    ]


def test_no_secret_shows_when_settings_are_printed() -> None:
    settings = Settings.read(SECRETS)

    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "geheim" not in shown
    assert settings.pepper is not None
    assert settings.pepper.get_secret_value() == "geheim-1"
    assert settings.database == SECRETS["LONGLOOK_DATABASE_URL"]


def test_every_secret_can_come_from_a_file(tmp_path: Path) -> None:
    environ = {}
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(f"{value}\n")
        environ[f"{name}_FILE"] = str(tmp_path / name)

    settings = Settings.read(environ)

    assert settings == Settings.read(SECRETS)
    assert {PREFIX + name.upper() for name in Settings.secret_names()} == SECRETS.keys()
    assert "geheim" not in repr(settings)


def test_faults_of_secret_files_are_reported_together_without_secrets(
    tmp_path: Path,
) -> None:
    contents = {
        "empty": b" \n",
        "binary": b"geheim\xff",
        "large": b"geheim" * 20_000,
        "good": b"geheim",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    reported = faults(
        pepper_file=f"{tmp_path}/none",
        vault_key_file=f"{tmp_path}/empty",
        api_key_file=f"{tmp_path}/binary",
        redis_url_file=f"{tmp_path}/large",
        database_url="sqlite:///x",
        database_url_file=f"{tmp_path}/good",
        engine_urls_file=f"{tmp_path}/good",
        port_file=f"{tmp_path}/good",
    )

    assert sorted(reported) == [
        f"LONGLOOK_API_KEY_FILE: {tmp_path}/binary must be text in UTF-8",
        "LONGLOOK_DATABASE_URL_FILE: LONGLOOK_DATABASE_URL is set, too; set one of them",
        "LONGLOOK_ENGINE_URLS: must be HTTP or HTTPS URLs, or `scripted:`",
        f"LONGLOOK_PEPPER_FILE: {tmp_path}/none cannot be read: No such file or directory",
        "LONGLOOK_PORT_FILE: no such setting",
        f"LONGLOOK_REDIS_URL_FILE: {tmp_path}/large must have at most 65536 bytes",
        f"LONGLOOK_VAULT_KEY_FILE: {tmp_path}/empty must not be empty",
    ]


def test_the_file_of_an_optional_secret_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("\n")
    (tmp_path / "one").write_text("http://user:geheim@proxy.example:3128\n")

    without = Settings.read({"LONGLOOK_OUTBOUND_PROXY_FILE": f"{tmp_path}/none"})
    with_one = Settings.read({"LONGLOOK_OUTBOUND_PROXY_FILE": f"{tmp_path}/one"})

    assert without.proxy is None
    assert with_one.proxy is not None
    assert with_one.proxy.host == "proxy.example"


def test_an_empty_file_name_counts_as_unset() -> None:
    assert Settings.read({"LONGLOOK_PEPPER_FILE": ""}).pepper is None


def test_a_renewal_above_half_of_the_lease_is_refused() -> None:
    assert len(faults(lease_seconds="10", renew_seconds="5.1")) == 1
    assert Settings.read({}, lease_seconds=10, renew_seconds=5).renew_interval == 5


@given(st.floats(0.1, 10_000))
def test_intervals_follow_the_lease(lease: float) -> None:
    settings = Settings.read({}, lease_seconds=lease)

    assert settings.renew_interval == lease / 4
    assert settings.sweep_interval == min(10.0, lease / 3)


def test_intervals_can_be_set() -> None:
    settings = Settings.read({}, lease_seconds=60, renew_seconds=3, sweep_seconds=7)

    assert (settings.renew_interval, settings.sweep_interval) == (3, 7)


def test_several_engines_come_as_one_list() -> None:
    settings = Settings.read({"LONGLOOK_ENGINE_URLS": " http://a:1/, https://b ,scripted: "})

    assert settings.engine_urls == ("http://a:1", "https://b", "scripted:")


def test_no_engine_at_all_is_refused() -> None:
    assert [line.split(":")[0] for line in faults(engine_urls=" , ")] == ["LONGLOOK_ENGINE_URLS"]


@pytest.mark.parametrize(
    ("model", "family", "profile"),
    [
        ("tiny-qvq", "auto", profiles.TINY),
        ("qvq-72b-preview", "auto", profiles.QVQ),
        ("my-own-name", "tiny", profiles.TINY),
        ("tiny-qvq", "qvq", profiles.QVQ),
    ],
)
def test_the_limits_are_the_models(model: str, family: str, profile: profiles.ModelProfile) -> None:
    assert Settings.read({}, model=model, model_profile=family).profile is profile


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.read({}).port = 1  # type: ignore[misc] # the test is about the error


def test_every_setting_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("value", "public_url"),
    [
        ("https://ai.example.com", "https://ai.example.com"),
        ("https://ai.example.com/longlook/", "https://ai.example.com/longlook"),
        ("http://10.0.0.1:8080/a/b", "http://10.0.0.1:8080/a/b"),
        ("http://[::1]:8700", "http://[::1]:8700"),
        ("", ""),
    ],
)
def test_a_public_url_is_absolute_and_may_have_a_prefix(value: str, public_url: str) -> None:
    assert Settings.read({"LONGLOOK_PUBLIC_URL": value}).public_url == public_url


@pytest.mark.parametrize(
    "value",
    [
        "ai.example.com", "/longlook", "ftp://ai.example.com", "https://", "https://user@ai.example.com",
        "https://ai.example.com/?a=b", "https://ai.example.com/#a", "https://ai.example.com//a",
        "https://ai.example.com/a/../b", "https://ai.example.com/a b", "https://ai.example.com/\n",
    ],
)  # fmt: skip
def test_another_public_url_is_refused(value: str) -> None:
    with pytest.raises(errors.SettingsError, match="LONGLOOK_PUBLIC_URL: must be an absolute http"):
        Settings.read({"LONGLOOK_PUBLIC_URL": value})


def test_a_body_must_fit_into_the_spool_with_its_images() -> None:
    with pytest.raises(errors.SettingsError, match="SPOOL_MB must be at least 3 times MAX_BODY_MB"):
        Settings.read({"LONGLOOK_SPOOL_MB": "191"})
    assert Settings.read({"LONGLOOK_SPOOL_MB": "192"}).spool_mb == 192


def test_a_decode_has_more_time_by_the_clock_than_of_the_cpu() -> None:
    assert Settings.read({"LONGLOOK_SANDBOX_SECONDS": "5"}).sandbox_ceiling == 10
    assert Settings.read({"LONGLOOK_SANDBOX_WALL_SECONDS": "7"}).sandbox_ceiling == 7
