"""Everything that can be set, once: read from ``LONGLOOK_*`` in the environment, all faults told together.

A setting that holds a secret, such as ``LONGLOOK_PEPPER``, may come from a file: ``LONGLOOK_PEPPER_FILE`` names it.
A field's description is its documentation: the README's table and ``longlook config show`` come from it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from core import errors, profiles

PREFIX = "LONGLOOK_"
#: Variables of the test suite: they tell the tests where things are, not the service.
TEST_PREFIX = "LONGLOOK_TEST_"

#: Behind a setting's name: the file that holds its value.
FILE_SUFFIX = "_file"
_LONGEST_SECRET = 64 * 1024

_ORIGIN = re.compile(r"https?://[^/\s?#@]+")


class Settings(BaseSettings):
    """The settings of every process of the service.

    Raises:
        core.errors.SettingsError: from :meth:`read`, naming every fault.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    # Where things are
    home: Path = Field(
        default_factory=lambda: Path.home() / ".longlook",
        description="Directory of all state of `longlook up`: database, secrets, sockets, logs.",
    )
    database_url: str = Field(
        default="",
        repr=False,  # It may hold a password, as may the other addresses.
        description="SQLAlchemy URL, SQLite or PostgreSQL 15+. Empty: SQLite in the home directory.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description="Redis or Valkey, the doorbell. `longlook up` starts its own.",
    )
    log_format: Literal["auto", "json", "columns"] = Field(
        default="auto", description="`auto`: columns on a terminal, JSON elsewhere."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is written."
    )

    # Secrets and access
    pepper: SecretStr | None = Field(
        default=None,
        description="Secret with which API keys are hashed. Empty: made at first start in the home directory.",
    )
    bootstrap_key: SecretStr | None = Field(
        default=None, description="An admin key to create at the first start of `longlook up`."
    )
    vault_key: SecretStr | None = Field(
        default=None,
        description="Keys that encrypt webhook secrets at rest, separated by commas, the newest first. "
        "Empty: made at first start in the home directory.",
    )

    # The command line as a client
    url: str = Field(
        default="http://127.0.0.1:8700", description="The service that the command line talks to."
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="The key of the command line. Empty: the one `longlook up` left in the home directory.",
    )

    # The API
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8700, ge=0, le=65535, description="Port the API listens on.")
    api_threads: int = Field(
        default=8,
        ge=4,
        le=1024,
        description="Requests that the API computes at once. Those that wait (for a job, an image decoder, a download) "
        "do not count.",
    )
    max_streams: int = Field(
        default=680,
        ge=0,
        le=4096,
        description="Streams and `Prefer: wait` requests held open at once; one account has three quarters at most.",
    )
    max_body_mb: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Largest request body, in MiB; a key may have a smaller limit of its own.",
    )
    bodies_mb: int = Field(
        default=256,
        ge=2,
        le=65536,
        description="Request bodies and unsent answers in memory at once, in MiB, and as much again for images that "
        "are fetched by URL; one account has three quarters of each at most. At least twice `LONGLOOK_MAX_BODY_MB`.",
    )
    max_connections: int = Field(
        default=4096,
        ge=128,
        le=1_000_000,
        description="Connections open at once, those of streams and waits included. A lower limit of open files wins.",
    )
    head_seconds: float = Field(
        default=30.0, gt=0, description="Longest time for the head of a request."
    )
    body_seconds: float = Field(
        default=300.0, gt=0, description="Longest time for the body of a request."
    )
    body_bytes_per_second: int = Field(
        default=1024,
        ge=0,
        description="Least rate at which a client must send a body or take an answer; it may fall behind by "
        "`LONGLOOK_HEAD_SECONDS` or `LONGLOOK_WRITE_SECONDS`. 0: a single byte in that time is enough.",
    )
    write_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest time in which a client takes nothing of its answer.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Networks of reverse proxies whose `X-Forwarded-For` is believed, separated by commas.",
    )
    max_images: int = Field(default=8, ge=1, le=64, description="Images in one job.")
    max_image_mb: int = Field(default=20, ge=1, le=200, description="Largest image file, in MiB.")
    max_image_megapixels: int = Field(
        default=50,
        ge=1,
        le=178,
        description="Largest image, in millions of pixels, before decoding.",
    )
    failed_keys_per_minute: int = Field(
        default=300,
        ge=1,
        description="Requests without a valid key that an address may send a minute; more of them are 429.",
    )
    disk_floor_mb: int = Field(
        default=500,
        ge=0,
        description="Free space on SQLite's disk below which jobs and images are refused, in MiB.",
    )
    storage_mb_per_account: int = Field(
        default=10_240,
        ge=0,
        description="Storage quota of an account without one of its own, in MiB: images, traces, questions, answers. "
        "0 is no limit.",
    )
    idempotency_hours: float = Field(
        default=24.0, gt=0, description="How long an Idempotency-Key is kept."
    )
    sandbox_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Killable children that decode images, per process, and one more for accounts that use none.",
    )
    sandbox_seconds: float = Field(
        default=15.0, gt=0, description="A decode that takes longer is killed."
    )
    sandbox_memory_mb: int = Field(
        default=1536, ge=256, description="Address space of a decoding child, in MiB."
    )

    searches: int = Field(
        default=3,
        ge=2,
        le=10,
        description="Searches and filtered lists at once, per API process; one place is for accounts that use none.",
    )
    search_seconds: float = Field(
        default=5.0, gt=0, description="A search or filtered list that takes longer is ended."
    )

    # The model
    model: str = Field(default=profiles.TINY.name, description="Name of the served model.")
    model_profile: Literal["auto", "qvq", "tiny"] = Field(
        default="auto", description="The model's limits. `auto`: by the model's name."
    )

    # The worker
    engine_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("http://127.0.0.1:30000",),
        repr=False,
        description="Engines, separated by commas. `scripted:` is the built-in one that needs no model.",
    )
    engine_api_key: SecretStr | None = Field(
        default=None, description="Bearer key of the engines, if they want one."
    )
    engine_connect_seconds: float = Field(default=5.0, gt=0, description="Time to reach an engine.")
    engine_first_token_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Longest wait for an answer's first token: it covers the engine's queue and prefill.",
    )
    engine_silent_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Longest wait for a first token outside of the engine's queue, on top of the time for the prompt "
        "(500 tokens per second). After it the attempt fails with `engine_silent`.",
    )
    engine_token_seconds: float = Field(
        default=60.0, gt=0, description="Longest silence between two tokens."
    )
    worker_slots: int = Field(
        default=64, ge=1, le=512, description="Jobs one worker process runs at once, at most."
    )
    lease_seconds: float = Field(
        default=60.0,
        gt=0,
        description="A job whose worker is silent this long runs again elsewhere.",
    )
    renew_seconds: float | None = Field(
        default=None, gt=0, description="Between two renewals. Empty: a quarter of the lease."
    )
    sweep_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Between two sweeps. Empty: a third of the lease, 10 at most.",
    )
    watch_seconds: float = Field(
        default=1.0, gt=0, description="Between two looks for cancels and deadlines."
    )
    flush_seconds: float = Field(
        default=1.0, gt=0, description="Between two writes of the running traces."
    )
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        description="After SIGTERM: time for running jobs to finish by themselves.",
    )
    crash_limit: int = Field(
        default=3, ge=1, description="Lost leases after which a job fails with `worker_lost`."
    )
    max_attempts: int = Field(
        default=5,
        ge=1,
        le=20,
        description="Engine faults after which a job fails, unless it says so itself.",
    )
    max_samples: int = Field(
        default=16, ge=1, le=64, description="Most samples that one job may have vote."
    )
    max_generations_per_request: int = Field(
        default=256,
        ge=1,
        description="Most generations that one request may ask for: its questions times `samples`.",
    )
    deadline_seconds: int = Field(
        default=3600, ge=1, description="Deadline of a job that names none, from its submission."
    )

    # Metrics
    metrics_public: bool = Field(
        default=False, description="Serve the API's `/metrics` to anybody, not to operators alone."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of a worker's metrics; 0 is none."
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address of a worker's metrics, which need no key.",
    )
    revision: str = Field(
        default="",
        max_length=100,
        description="Revision of the source, a label of `longlook_build_info`. Images have it set.",
    )

    # Starting an engine
    engine_python: Path | None = Field(
        default=None,
        description="Python of the engine's environment. Empty: what `longlook engine install` made.",
    )
    engine_model_path: str = Field(
        default="", description="Checkpoint to serve. Empty: tiny-qvq, or QVQ-72B-Preview on GPUs."
    )

    # Admission, retention, history
    queued_jobs_per_account: int = Field(
        default=50_000,
        ge=1,
        description="With so many queued jobs an account is refused more of them.",
    )
    queued_jobs_total: int = Field(
        default=200_000, ge=1, description="With so many queued jobs everybody is refused more."
    )
    requests_per_minute: int = Field(
        default=6_000,
        ge=1,
        description="Requests of one key a minute, also at once, to all API processes together.",
    )
    quarantine_crashes: int = Field(
        default=3,
        ge=1,
        description="Engines that died over an image, or answered all other jobs only, after which it is refused "
        "until an operator releases it.",
    )
    retention_image_days: float = Field(
        default=0,
        ge=0,
        description="Days after its job's end that an image is kept; 0 is for ever.",
    )
    retention_trace_days: float = Field(
        default=0, ge=0, description="Days after its job's end that a trace is kept; 0 is for ever."
    )
    retention_answer_days: float = Field(
        default=0,
        ge=0,
        description="Days after its job's end that question and answer are kept; 0 is for ever.",
    )
    retention_timeline_days: float = Field(
        default=0,
        ge=0,
        description="Days after its job's end that a timeline is kept; 0 is for ever.",
    )

    # Webhooks and outgoing requests
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Private networks that webhooks and image URLs may reach, also by http and on any port.",
    )
    webhook_seconds: float = Field(
        default=15.0, gt=0, description="Longest wait for a receiver's whole answer."
    )
    image_url_seconds: float = Field(
        default=10.0, gt=0, description="Longest fetch of the image URLs of a job, in all."
    )

    # The live trace and its guards
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may read streams, separated by commas. `*` is any.",
    )
    guard_loop: bool = Field(
        default=True, description="Stop endless loops and have the answer given."
    )
    guard_budget: bool = Field(
        default=True,
        description="Keep some tokens for an answer when the reasoning uses up its budget.",
    )
    guard_convergence: bool = Field(
        default=False,
        description="Ask for the answer on the way, and stop the reasoning when it has not changed.",
    )
    guard_language: bool = Field(
        default=True,
        description="Ask again when reasoning and answer drifted into another script.",
    )
    guard_verify: bool = Field(
        default=False,
        description="Have each answer checked against the image by a second look.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values as given: :meth:`read` is what looks at an environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator(
        "engine_urls", "webhook_allow", "cors_origins", "trusted_proxies", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("engine_urls")
    @classmethod
    def _engines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one engine is needed")
        for url in value:
            if not url.startswith(("http://", "https://", "scripted:")):
                raise ValueError("an engine is an http(s) URL or `scripted:`")
        return value

    @field_validator("webhook_allow", "trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError("a network is such as `127.0.0.0/8` or `fd00::/8`") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("an origin is `https://name`, with a port if it has one, or `*`")
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("a database is `sqlite:///path` or `postgresql://…`")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a doorbell is `redis://…`, `rediss://…` or `unix://path`")
        return value

    @model_validator(mode="after")
    def _intervals(self) -> Settings:
        if self.renew_interval > self.lease_seconds / 2:
            raise ValueError(
                "RENEW_SECONDS above half of LEASE_SECONDS loses leases to one slow renewal"
            )
        return self

    @model_validator(mode="after")
    def _memory(self) -> Settings:
        if self.bodies_mb < 2 * self.max_body_mb:
            raise ValueError("BODIES_MB below twice MAX_BODY_MB has no room for the largest body")
        return self

    @property
    def renew_interval(self) -> float:
        """Seconds between two renewals of a lease."""
        return self.renew_seconds or self.lease_seconds / 4

    @property
    def sweep_interval(self) -> float:
        """Seconds between two sweeps."""
        return self.sweep_seconds or min(10.0, self.lease_seconds / 3)

    @property
    def database(self) -> str:
        """The database's URL, worked out."""
        return self.database_url or f"sqlite:///{self.home / 'longlook.db'}"

    @property
    def profile(self) -> profiles.ModelProfile:
        """The limits of the served model."""
        family = self.model_profile
        if family == "auto":
            family = "tiny" if "tiny" in self.model else "qvq"
        return profiles.PROFILES[family]

    @classmethod
    def secret_names(cls) -> frozenset[str]:
        """Return the names of the settings that hold a secret, or may; each of them may come from a file."""
        return frozenset(
            name
            for name, field in cls.model_fields.items()
            if not field.repr or SecretStr in typing.get_args(field.annotation)
        )

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
        """Return the settings of an environment; ``overrides`` (flags) win.

        Raises:
            core.errors.SettingsError: with every fault, unknown ``LONGLOOK_`` names included.
        """
        environ = os.environ if environ is None else environ
        given, faults = _from_files(
            {
                name.removeprefix(PREFIX).lower(): value
                for name, value in environ.items()
                if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX)
            },
            secret=cls.secret_names(),
        )
        # Empty is not given; a name that nobody knows is a mistake whatever it holds.
        unknown = sorted(name for name in given if name not in cls.model_fields)
        known: dict[str, object] = {
            name: value for name, value in given.items() if name in cls.model_fields and value
        }
        known |= {name: value for name, value in overrides.items() if value is not None}
        faults += [f"{PREFIX}{name.upper()}: no such setting" for name in unknown]
        try:
            settings = cls.model_validate(known)
        except ValidationError as error:
            faults += [_fault(detail) for detail in error.errors()]
        if faults:
            raise errors.SettingsError("\n".join(faults))
        return settings


def _from_files(
    given: Mapping[str, str], *, secret: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Return what is given, with the contents of files in the place of their names, and what is wrong with those.

    Args:
        given: values by the names of settings, of files by these names with ``_file`` behind them.
        secret: the names whose values may come from a file.
    """
    values, faults = dict(given), []
    for name in sorted(secret):
        place = values.pop(name + FILE_SUFFIX, "")
        if not place:
            continue
        variable = f"{PREFIX}{name.upper()}"
        if values.get(name):
            faults.append(f"{variable}_FILE: {variable} is set, too; set one of them")
            continue
        try:
            values[name] = _content(Path(place))
        except ValueError as error:
            faults.append(f"{variable}_FILE: {place} {error}")
    return values, faults


def _content(path: Path) -> str:
    """Return the secret in a file, without the space around it. Raises :class:`ValueError` with what is wrong."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > _LONGEST_SECRET:
        raise ValueError(f"has more than {_LONGEST_SECRET} bytes, too many for a secret")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None
    if not text:
        raise ValueError("is empty")
    return text


def _fault(detail: Any) -> str:  # noqa: ANN401 - pydantic's own dictionary
    """Return one fault as a line that names the variable and never shows its value."""
    where = ".".join(str(part) for part in detail["loc"])
    name = f"{PREFIX}{where.upper()}: " if where else PREFIX
    return name + str(detail["msg"]).removeprefix("Value error, ")
