"""All settings: read from ``LONGLOOK_*`` in the environment; an error lists every problem.

A setting that holds a secret, such as ``LONGLOOK_PEPPER``, may come from a file: ``LONGLOOK_PEPPER_FILE`` names it.
A field's description is its documentation: the reference and ``longlook config show`` show it.
"""

from __future__ import annotations

import dataclasses
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
from core.outbound_proxy import OutboundProxy, check_direct
from core.redis_url import RedisURL

PREFIX = "LONGLOOK_"
#: Variables of the test suite, which the service ignores.
TEST_PREFIX = "LONGLOOK_TEST_"

#: After the name of a setting: the name of the file that holds its value.
FILE_SUFFIX = "_file"
_LONGEST_SECRET = 64 * 1024
#: Secrets whose files may be empty: the deployment does without them.
_OPTIONAL_SECRETS = frozenset({"outbound_proxy"})

#: A body, its images, and the third that one account leaves to others.
_SPOOLED_BODIES = 3
#: The default limit of a decode by the clock, as a multiple of its CPU time.
_WALL_FACTOR = 2

#: A host with a port, or an IPv6 address, then segments of a path that need no encoding (RFC 3986).
_PUBLIC_URL = re.compile(
    r"https?://(?:[A-Za-z0-9._~-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{1,5})?(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%-]++)*+/?"
)
_ORIGIN = re.compile(r"https?://[^/\s?#@]+")


class Settings(BaseSettings):
    """The settings of every process of the service.

    Raises:
        core.errors.SettingsError: from :meth:`read`, which lists every problem.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    # Locations
    home: Path = Field(
        default_factory=lambda: Path.home() / ".longlook",
        description="Directory with all state of `longlook up`: database, secrets, sockets, logs. The API keeps large "
        "request bodies there.",
    )
    database_url: str = Field(
        default="",
        repr=False,  # It can contain a password, like the other URLs.
        description="SQLAlchemy URL, SQLite or PostgreSQL 15+. Empty: SQLite in the home directory.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description="Redis or Valkey, for wakeups, live events, and rate limits. `longlook up` starts its own.",
    )
    redis_prefix: str = Field(
        default="",
        max_length=64,
        pattern=r"^[A-Za-z0-9._:-]*$",
        description="Prefix of every key, channel, and queue in Redis; a colon follows it. Empty: `longlook:` "
        "and the id of the database.",
    )
    log_format: Literal["auto", "json", "columns"] = Field(
        default="auto", description="`auto`: columns on a terminal, JSON elsewhere."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level that is logged."
    )

    # Secrets and access
    pepper: SecretStr | None = Field(
        default=None,
        description="Secret for the hashes of API keys; during a rotation several, separated by commas, the newest "
        "first. Empty: generated in the home directory at the first start.",
    )
    bootstrap_key: SecretStr | None = Field(
        default=None, description="Admin key that the first start of `longlook up` creates."
    )
    vault_key: SecretStr | None = Field(
        default=None,
        description="Keys that encrypt webhook secrets at rest, separated by commas, the newest first. "
        "Empty: generated in the home directory at the first start.",
    )

    # The command line as a client
    url: str = Field(
        default="http://127.0.0.1:8700", description="URL of the service, for the command line."
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="API key of the command line. Empty: the key that `longlook up` left in the home directory.",
    )

    # The API
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8700, ge=0, le=65535, description="Port the API listens on.")
    api_threads: int = Field(
        default=8,
        ge=4,
        le=1024,
        description="Requests that the API processes at once. Requests that wait (for a job, an image decoder, "
        "a download) "
        "do not count.",
    )
    max_streams: int = Field(
        default=680,
        ge=0,
        le=4096,
        description="Limit of open streams and `Prefer: wait` requests; one account gets at most three quarters.",
    )
    max_body_mb: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Largest request body, in MiB. A key can have a smaller limit.",
    )
    max_file_mb: int = Field(
        default=200,
        ge=1,
        le=512,
        description="Largest file of `POST /v1/files`, in MiB; at most a third of `LONGLOOK_SPOOL_MB` is accepted.",
    )
    bodies_mb: int = Field(
        default=256,
        ge=2,
        le=65536,
        description="Memory for request bodies of up to 256 KiB and unsent responses, in MiB, and the same again for "
        "images that are fetched by URL. One account gets at most three quarters of each.",
    )
    spool_mb: int = Field(
        default=2048,
        ge=3,
        le=1_048_576,
        description="Disk space in the home directory for larger request bodies and their images, in MiB. One account "
        "gets at most three quarters. At least three times `LONGLOOK_MAX_BODY_MB`.",
    )
    max_connections: int = Field(
        default=4096,
        ge=128,
        le=1_000_000,
        description="Limit of open connections, streams and waiting requests included. A lower limit of open "
        "files has priority.",
    )
    head_seconds: float = Field(
        default=30.0, gt=0, description="Time limit for the head of a request."
    )
    body_seconds: float = Field(
        default=300.0, gt=0, description="Time limit for the body of a request."
    )
    body_bytes_per_second: int = Field(
        default=1024,
        ge=0,
        description="Lowest rate at which a client must send a body or read a response. It may fall behind by "
        "`LONGLOOK_HEAD_SECONDS` or `LONGLOOK_WRITE_SECONDS`. 0: one byte in that time is enough.",
    )
    write_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest time during which a client reads nothing of its response.",
    )
    public_url: str = Field(
        default="",
        description="URL at which clients reach the API, with the path prefix of a reverse proxy, such as "
        "`https://ai.example.com/longlook`. All links in responses and webhooks begin with it. Empty: links are paths.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Prefix` are trusted, "
        "separated by commas.",
    )
    max_images: int = Field(default=8, ge=1, le=64, description="Images in one job.")
    min_image_tokens: int | None = Field(
        default=None,
        ge=4,
        le=1280,
        description="Least visual tokens of an image: the engine enlarges smaller ones. Default: the model's limit. "
        "QVQ's published figures were measured with 1280. Restart the engine after a change. No effect on tiny-qvq.",
    )
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
        description="Limit of requests without a valid key per address and minute; above it they get 429.",
    )
    disk_floor_mb: int = Field(
        default=500,
        ge=0,
        description="Free space, in MiB, on SQLite's disk below which jobs and images are refused, and on the disk of "
        "the home directory below which large request bodies are.",
    )
    storage_mb_per_account: int = Field(
        default=10_240,
        ge=0,
        description="Storage quota of accounts without their own quota, in MiB: images, traces, questions, answers. "
        "0: no limit.",
    )
    idempotency_hours: float = Field(
        default=24.0, gt=0, description="How long an Idempotency-Key is kept."
    )
    sandbox_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Processes that decode images, per API process, and one more for accounts that use none.",
    )
    sandbox_seconds: float = Field(
        default=15.0,
        gt=0,
        description="CPU time of a decode. An image that needs more is refused.",
    )
    sandbox_wall_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Time limit of a decode by the clock. After it the machine is too busy, and the request gets 503. "
        "Empty: twice `LONGLOOK_SANDBOX_SECONDS`.",
    )
    sandbox_memory_mb: int = Field(
        default=1536, ge=256, description="Address space of a process that decodes images, in MiB."
    )

    searches: int = Field(
        default=3,
        ge=2,
        le=10,
        description="Searches and filtered lists at once, per API process. One place is reserved for accounts "
        "that use none.",
    )
    search_seconds: float = Field(
        default=5.0, gt=0, description="A search or filtered list that takes longer is stopped."
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
        description="URLs of the engines, separated by commas. `scripted:` is a built-in engine that needs no model.",
    )
    engine_api_key: SecretStr | None = Field(
        default=None, description="Bearer key of the engines, if they require one."
    )
    engine_connect_seconds: float = Field(
        default=5.0, gt=0, description="Time limit for a connection to an engine."
    )
    engine_first_token_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Longest wait for the first token. It includes the engine's queue and prefill.",
    )
    engine_silent_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Longest wait for the first token of a request that is not in the engine's queue, in "
        "addition to the time "
        "for the prompt (500 tokens per second). After it the attempt fails with `engine_silent`.",
    )
    engine_token_seconds: float = Field(
        default=60.0, gt=0, description="Longest silence between two tokens."
    )
    worker_slots: int = Field(
        default=64, ge=1, le=512, description="Jobs that one worker process runs at once."
    )
    lease_seconds: float = Field(
        default=60.0,
        gt=0,
        description="A job whose worker does not renew its lease for this time runs again elsewhere.",
    )
    renew_seconds: float | None = Field(
        default=None, gt=0, description="Time between two renewals. Empty: a quarter of the lease."
    )
    sweep_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Time between two sweeps. Empty: a third of the lease, at most 10.",
    )
    watch_seconds: float = Field(
        default=1.0, gt=0, description="Time between two checks for cancels and deadlines."
    )
    flush_seconds: float = Field(
        default=1.0, gt=0, description="Time between two writes of the running traces."
    )
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Time for running jobs to finish after SIGTERM.",
    )
    crash_limit: int = Field(
        default=3, ge=1, description="Lost leases after which a job fails with `worker_lost`."
    )
    max_attempts: int = Field(
        default=5,
        ge=1,
        le=20,
        description="Failures of engines after which a job fails, if the job does not set the number.",
    )
    max_samples: int = Field(
        default=16, ge=1, le=64, description="Most samples that one job may have."
    )
    max_generations_per_request: int = Field(
        default=256,
        ge=1,
        description="Most generations per request: its questions times `samples`.",
    )
    deadline_seconds: int = Field(
        default=3600,
        ge=1,
        description="Deadline of a job that sets none, counted from its submission.",
    )

    # Metrics
    metrics_public: bool = Field(
        default=False,
        description="Serve the API's `/metrics` without a key. Otherwise it needs the key of an operator.",
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of a worker's metrics; 0: none."
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address of a worker's metrics, which need no key.",
    )
    revision: str = Field(
        default="",
        max_length=100,
        description="Revision of the source, a label of `longlook_build_info`. Container images set it.",
    )

    # Starting an engine
    engine_python: Path | None = Field(
        default=None,
        description="Python of the engine's environment. Empty: the environment of `longlook engine install`.",
    )
    engine_model_path: str = Field(
        default="",
        description="Checkpoint to serve. Empty: QVQ-72B-Preview on GPUs, else tiny-qvq.",
    )

    # Admission, retention, history
    queued_jobs_per_account: int = Field(
        default=50_000,
        ge=1,
        description="Limit of queued jobs per account; above it submissions get 429.",
    )
    queued_jobs_total: int = Field(
        default=200_000,
        ge=1,
        description="Limit of queued jobs of all accounts; above it submissions get 429.",
    )
    batches_per_account: int = Field(
        default=20,
        ge=1,
        description="Limit of unfinished batches per account; above it a new batch gets 429. The lines of all batches, "
        "also of those that have ended, count towards the storage quota.",
    )
    batch_window: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Unfinished jobs of one batch: its other lines wait for their turn. At most half of the account's "
        "queue is filled by batches.",
    )
    requests_per_minute: int = Field(
        default=6_000,
        ge=1,
        description="Limit of requests per key and minute, also in one burst, over all API processes.",
    )
    quarantine_crashes: int = Field(
        default=3,
        ge=1,
        description="Engine crashes, or silences toward this image only, after which an image is refused until "
        "an operator "
        "releases it.",
    )
    retention_image_days: float = Field(
        default=0,
        ge=0,
        description="Days that an image is kept after the end of its job; 0: no limit.",
    )
    retention_trace_days: float = Field(
        default=0,
        ge=0,
        description="Days that a trace is kept after the end of its job; 0: no limit.",
    )
    retention_answer_days: float = Field(
        default=0,
        ge=0,
        description="Days that question, answer and metadata are kept after the end of the job; 0: no limit.",
    )
    retention_timeline_days: float = Field(
        default=0,
        ge=0,
        description="Days that a timeline is kept after the end of its job; 0: no limit.",
    )

    # Webhooks and outgoing requests
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Private networks that webhooks and image URLs may reach, by HTTP as well and on any port.",
    )
    webhook_seconds: float = Field(
        default=15.0,
        gt=0,
        description="Time limit for a delivery attempt, from resolving the name to the whole response.",
    )
    image_url_seconds: float = Field(
        default=10.0, gt=0, description="Time limit for fetching all image URLs of a job."
    )
    outbound_proxy: str = Field(
        default="",
        repr=False,
        description="HTTP proxy for webhooks and image URLs, such as `http://user:password@proxy.example:3128`; with "
        "`https://` the connection to the proxy uses TLS. It must permit CONNECT to addresses. Empty: direct "
        "connections; `HTTPS_PROXY` has no effect.",
    )
    outbound_no_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Targets that need no proxy, separated by commas: networks, and names, which include the names "
        "below them.",
    )

    # The live trace and its guards
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may read streams, separated by commas. `*`: any origin.",
    )
    guard_loop: bool = Field(
        default=True, description="Stop repetition loops and request the answer."
    )
    guard_budget: bool = Field(
        default=True,
        description="Reserve tokens for the answer in case the reasoning uses up its budget.",
    )
    guard_convergence: bool = Field(
        default=False,
        description="Request early answers during the reasoning, and stop it when they agree.",
    )
    guard_language: bool = Field(
        default=True,
        description="Request the answer again when the text has changed to another script.",
    )
    guard_verify: bool = Field(
        default=False,
        description="Verify each answer against the image in a further generation.",
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
        """Use only the values that are passed: :meth:`read` reads the environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator(
        "engine_urls",
        "webhook_allow",
        "cors_origins",
        "trusted_proxies",
        "outbound_no_proxy",
        mode="before",
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
            raise ValueError("must name at least one engine")
        for url in value:
            if not url.startswith(("http://", "https://", "scripted:")):
                raise ValueError("must be HTTP or HTTPS URLs, or `scripted:`")
        return value

    @field_validator("webhook_allow", "trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError("must be networks such as `127.0.0.0/8` or `fd00::/8`") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "must be origins such as `https://name` or `https://name:8443`, or `*`"
                )
        return value

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and not _PUBLIC_URL.fullmatch(value):
            raise ValueError(
                "must be an absolute http or https URL without user, query and fragment, such as "
                "`https://ai.example.com/longlook`"
            )
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("must be `sqlite:///path` or `postgresql://…`")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        RedisURL.parse(value)
        return value

    @field_validator("outbound_proxy")
    @classmethod
    def _proxy_url(cls, value: str) -> str:
        if value:
            OutboundProxy.parse(value)
        return value

    @field_validator("outbound_no_proxy")
    @classmethod
    def _direct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_direct(entry) for entry in value)

    @model_validator(mode="after")
    def _intervals(self) -> Settings:
        if self.renew_interval > self.lease_seconds / 2:
            raise ValueError(
                "RENEW_SECONDS must be at most half of LEASE_SECONDS: otherwise one slow renewal loses leases"
            )
        return self

    @model_validator(mode="after")
    def _room(self) -> Settings:
        if self.spool_mb < _SPOOLED_BODIES * self.max_body_mb:
            raise ValueError(
                f"SPOOL_MB must be at least {_SPOOLED_BODIES} times MAX_BODY_MB: otherwise the largest body and its "
                "images do not fit"
            )
        return self

    @property
    def proxy(self) -> OutboundProxy | None:
        """The proxy of webhooks and image URLs, None for direct connections."""
        if not self.outbound_proxy:
            return None
        return OutboundProxy.parse(self.outbound_proxy, direct=self.outbound_no_proxy)

    @property
    def max_file_bytes(self) -> int:
        """The most bytes of a file: the spool has room for several requests with one."""
        return min(self.max_file_mb, self.spool_mb // _SPOOLED_BODIES) * 2**20

    @property
    def file_body_bytes(self) -> int:
        """The most bytes of a request with a file: the other fields of its form are small."""
        return self.max_file_bytes + 2**20

    @property
    def renew_interval(self) -> float:
        """Seconds between two renewals of a lease."""
        return self.renew_seconds or self.lease_seconds / 4

    @property
    def sandbox_ceiling(self) -> float:
        """Seconds that a decode may take by the clock, whatever else the machine does."""
        return self.sandbox_wall_seconds or _WALL_FACTOR * self.sandbox_seconds

    @property
    def sweep_interval(self) -> float:
        """Seconds between two sweeps."""
        return self.sweep_seconds or min(10.0, self.lease_seconds / 3)

    @property
    def database(self) -> str:
        """The effective URL of the database."""
        return self.database_url or f"sqlite:///{self.home / 'longlook.db'}"

    @property
    def profile(self) -> profiles.ModelProfile:
        """The limits of the served model."""
        family = self.model_profile
        if family == "auto":
            family = "tiny" if "tiny" in self.model else "qvq"
        return self.profile_of(family)

    def profile_of(self, family: str) -> profiles.ModelProfile:
        """Return the limits of a family of models, with the limits that are settings."""
        profile = profiles.PROFILES[family]
        if self.min_image_tokens is None or profile is profiles.TINY:
            return profile
        least = self.min_image_tokens * profiles.TOKEN_PIXELS
        return dataclasses.replace(profile, min_pixels=least)

    @classmethod
    def secret_names(cls) -> frozenset[str]:
        """Return the names of the settings that can contain a secret; each of them may come from a file."""
        return frozenset(
            name
            for name, field in cls.model_fields.items()
            if not field.repr or SecretStr in typing.get_args(field.annotation)
        )

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
        """Return the settings of an environment; ``overrides`` (flags) have priority.

        Raises:
            core.errors.SettingsError: with every problem, unknown ``LONGLOOK_`` names included.
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
        # An empty value counts as not set; an unknown name is an error even when it is empty.
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
    """Return the values, with the contents of files in place of their names, and the problems of the files.

    Args:
        given: values by the names of settings, and names of files by these names with ``_file`` appended.
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
            values[name] = _content(Path(place), optional=name in _OPTIONAL_SECRETS)
        except ValueError as error:
            faults.append(f"{variable}_FILE: {place} {error}")
    return values, faults


def _content(path: Path, *, optional: bool) -> str:
    """Return the secret in a file, without surrounding space. Raises :class:`ValueError` with the problem.

    An ``optional`` one may be empty, so that a deployment can mount the same files with it and without it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > _LONGEST_SECRET:
        raise ValueError(f"must have at most {_LONGEST_SECRET} bytes")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("must be text in UTF-8") from None
    if not text and not optional:
        raise ValueError("must not be empty")
    return text


def _fault(detail: Any) -> str:  # noqa: ANN401 - pydantic's own dictionary
    """Return one problem as a line that names the variable and never shows its value."""
    where = ".".join(str(part) for part in detail["loc"])
    name = f"{PREFIX}{where.upper()}: " if where else PREFIX
    return name + str(detail["msg"]).removeprefix("Value error, ")
