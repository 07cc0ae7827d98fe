"""``longlook doctor``: checks the installation and the running service, with a remedy for every problem."""

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import redis as redis_client
import typer

from cli import client, job_output, output
from cli.engine_plan import devices, plan
from cli.environments import build
from cli.launch import redis
from core import database, errors
from core.redis_url import RedisURL
from core.sandbox.confinement import FILES, LAYERS, SYSTEM_CALLS
from core.settings import Settings
from jobs.images import ImageReader
from jobs.store import storage, workers
from migrations import schema
from webhooks import claims

Verdict = Literal["ok", "warning", "missing"]

_OK: Final = 200
_SECONDS: Final = 3.0
_SCRIPTED: Final = "scripted:"
#: Accounts that store this share of their quota are reported, and the first few by name.
_NEAR_QUOTA: Final = 0.9
_NAMED_ACCOUNTS: Final = 5
#: A delivery attempt that is overdue by more is reported.
_OVERDUE: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check; ``remedy`` says what to do if it is not ok."""

    check: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """The detail and, on another line, the remedy."""
        detail = output.inline(self.detail)
        return f"{detail}\n-> {output.inline(self.remedy)}" if self.remedy else detail


def doctor(*, as_json: output.AsJson = False) -> None:
    """Check everything that the service needs on this machine. Exits with code 1 if something is missing."""
    diagnoses = list(diagnose(Settings.read()))
    if output.for_people(as_json=as_json):
        output.table(
            ("verdict", "check", "detail"),
            [(entry.verdict, output.inline(entry.check), entry.text) for entry in diagnoses],
            multiline=True,
        )
    else:
        output.as_json([asdict(entry) for entry in diagnoses])
    if any(entry.verdict == "missing" for entry in diagnoses):
        raise typer.Exit(output.Exit.FAILED)


def diagnose(settings: Settings) -> Iterator[Diagnosis]:
    """Yield the results of all checks. The verdict ``missing`` is for what jobs cannot run without."""
    yield Diagnosis("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _disk(settings)
    database_ = _database(settings)
    yield database_
    yield _redis(settings)
    yield from _api(settings)
    if database_.verdict == "ok":
        yield from _deliveries(settings)
        yield _storage(settings)
    yield _decoder(settings)
    yield _engine_environment(settings)
    yield _gpus()
    # `longlook up` starts engines at ports that no setting names; its workers report them.
    configured = "engine_urls" in settings.model_fields_set or database_.verdict != "ok"
    reported = [] if configured else _engines_of_workers(settings)
    for engine in reported:
        yield _reported(engine)
    for url in () if reported else settings.engine_urls:
        yield from _engine(url, settings)


def _disk(settings: Settings) -> Diagnosis:
    existing = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 2**20
    detail = f"{free} MiB free at {existing}"
    if free >= settings.disk_floor_mb:
        return Diagnosis("disk", "ok", detail)
    return Diagnosis(
        "disk",
        "missing",
        detail,
        f"free some space: jobs are rejected below {settings.disk_floor_mb} MiB",
    )


def _opened(settings: Settings) -> contextlib.closing[database.Database]:
    return contextlib.closing(database.Database(settings.database))


def _database(settings: Settings) -> Diagnosis:
    check, head = "database", ", ".join(schema.heads())
    if not settings.database_url and not (settings.home / "longlook.db").exists():
        return Diagnosis(check, "warning", "does not exist yet", "`longlook up` creates it")
    with _opened(settings) as opened:
        shown = opened.url.render_as_string(hide_password=True)
        try:
            revision = schema.current(opened)
        except database.DatabaseUnavailable:
            return Diagnosis(
                check, "missing", f"no response from {shown}", "check LONGLOOK_DATABASE_URL"
            )
    if revision == head:
        return Diagnosis(check, "ok", f"{shown}, revision {revision}")
    detail = f"{shown}, revision {revision or 'none'}; this version needs {head}"
    return Diagnosis(
        check, "missing", detail, "run `longlook db upgrade`, or install the version that fits"
    )


def _storage(settings: Settings) -> Diagnosis:
    """Check whether accounts are near their quotas, and whether the quotas fit on the disk."""
    check = "storage"
    try:
        with _opened(settings) as opened:
            rows = storage.accounts(opened, default_mb=settings.storage_mb_per_account)
    except database.DatabaseUnavailable:
        return Diagnosis(check, "warning", "unknown: no response from the database")
    detail = f"{output.size(sum(row.usage.total for row in rows))}, accounts: {len(rows)}"
    near = [
        row for row in rows if row.usage.limit and row.usage.total >= _NEAR_QUOTA * row.usage.limit
    ]
    if near:
        names = output.printable(", ".join(row.name for row in near[:_NAMED_ACCOUNTS]))
        remedy = "they must delete jobs or images, or `longlook accounts limit` raises their quota"
        return Diagnosis(
            check, "warning", f"{detail}; near their quota: {len(near)} ({names})", remedy
        )
    unlimited = [row for row in rows if row.usage.limit is None]
    if unlimited:
        remedy = "set LONGLOOK_STORAGE_MB_PER_ACCOUNT, or use `longlook accounts limit`"
        return Diagnosis(check, "warning", f"{detail}; without a quota: {len(unlimited)}", remedy)
    left = sum(max(0, (row.usage.limit or 0) - row.usage.total) for row in rows)
    if settings.database.startswith("sqlite") and left > shutil.disk_usage(settings.home).free:
        remedy = "set smaller quotas or use a larger disk: a full disk rejects all accounts"
        detail += f"; the quotas allow {output.size(left)} more, the disk has less"
        return Diagnosis(check, "warning", detail, remedy)
    return Diagnosis(check, "ok", detail)


def _redis(settings: Settings) -> Diagnosis:
    """Check the configured Redis, or else the server that ``longlook up`` starts."""
    if "redis_url" not in settings.model_fields_set:
        try:
            return Diagnosis("Redis", "ok", f"{redis.binary()}, started by `longlook up`")
        except errors.LaunchError as error:
            return Diagnosis("Redis", "missing", "no server is installed", str(error))
    connection = RedisURL.parse(settings.redis_url).client(seconds=_SECONDS)
    try:
        connection.ping()
    except redis_client.RedisError:
        return Diagnosis("Redis", "missing", "no response", "start it, or check LONGLOOK_REDIS_URL")
    finally:
        connection.close()
    return Diagnosis("Redis", "ok", "responds at LONGLOOK_REDIS_URL")


def _api(settings: Settings) -> Iterator[Diagnosis]:
    """Check whether the API accepts jobs, and whether it sees what jobs need to run."""
    status, ready = client.probe(f"{settings.url}/readyz", seconds=_SECONDS)
    if status:
        yield (
            Diagnosis("API", "ok", f"accepts jobs at {settings.url}")
            if status == _OK
            else Diagnosis("API", "missing", f"{settings.url}/readyz returns {status}", _why(ready))
        )
        for name, state in (ready.get("checks") or {}).items():
            if name in job_output.LACKS and state != "ok":
                detail, _, remedy = job_output.LACKS[name].partition("; ")
                yield Diagnosis(str(name), "warning", detail, remedy)
        return
    yield Diagnosis(
        "API",
        "warning",
        f"no response from {settings.url}",
        "run `longlook up`, or check LONGLOOK_URL",
    )


def _why(ready: dict[str, Any]) -> str:
    """Return the failed checks of ``/readyz`` as a remedy."""
    failed = [
        f"{name} is {state}" for name, state in (ready.get("checks") or {}).items() if state != "ok"
    ]
    return f"{', '.join(failed)}; see its log" if failed else "see its log"


def _decoder(settings: Settings) -> Diagnosis:
    """Start the image decoder, and check how far the kernel confines it."""
    check, meanings = "image decoder", {FILES: "other files", SYSTEM_CALLS: "the network"}
    images = ImageReader.start(settings)
    try:
        images.warm()
        confined = images.confined
    except errors.Unavailable as error:
        return Diagnosis(check, "missing", "does not start", str(error))
    finally:
        images.close()
    unconfined = [meanings[layer] for layer in LAYERS if layer not in confined]
    if not unconfined:
        return Diagnosis(check, "ok", "confined: no other files, no network, no programs")
    return Diagnosis(
        check,
        "warning",
        f"may access {' and '.join(unconfined)}",
        "use a kernel with Landlock and seccomp: Linux 5.13 or newer, on x86-64 or AArch64",
    )


def _deliveries(settings: Settings) -> Iterator[Diagnosis]:
    """Check the pending notifications, and whether a delivery process sends them."""
    try:
        with _opened(settings) as opened:
            backlog, pause = claims.backlog(opened), claims.pause(opened)
    except database.DatabaseUnavailable:
        return
    detail = f"{backlog.pending} pending"
    if backlog.oldest is not None:
        detail += f", the oldest for {backlog.oldest.total_seconds():.0f} s"
    if pause is None or pause > -_OVERDUE:
        yield Diagnosis("webhooks", "ok", detail)
        return
    yield Diagnosis(
        "webhooks",
        "warning",
        f"{detail}; an attempt is overdue by {-pause.total_seconds():.0f} s",
        "start `celery -A webhooks.app worker`; if it runs, receivers may be slow: see its log",
    )


def _engine_environment(settings: Settings) -> Diagnosis:
    check = "engine's environment"
    try:
        python = plan.plan((), settings, host="127.0.0.1", port=0).python or Path(sys.executable)
    except errors.LaunchError as error:
        return Diagnosis(check, "warning", "not for this model", str(error))
    if build.is_whole(python):
        return Diagnosis(check, "ok", str(python))
    return Diagnosis(
        check,
        "warning",
        f"{python} is missing or unfinished",
        "`longlook engine install`, for the small model",
    )


def _gpus() -> Diagnosis:
    gpus = [f"{gpu.name} ({gpu.memory:.0f} GiB)" for gpu in devices.find(os.environ)]
    if gpus:
        return Diagnosis("GPUs", "ok", ", ".join(gpus))
    return Diagnosis("GPUs", "warning", "none usable", "tiny-qvq needs none; QVQ-72B does")


def _engines_of_workers(settings: Settings) -> list[workers.EngineState]:
    """Return the engines that live workers report."""
    try:
        with _opened(settings) as opened:
            seen = workers.seen(opened, alive=timedelta(seconds=settings.lease_seconds))
    except database.DatabaseUnavailable:
        return []
    return workers.engines(seen)


def _reported(engine: workers.EngineState) -> Diagnosis:
    check = f"engine {engine.url}"
    if engine.state == "ok":
        window = f": {engine.window} streams" if engine.window else ""
        return Diagnosis(check, "ok", f"{engine.model}{window}, reported by the workers")
    detail = f"{engine.state}, reported by the workers"
    return Diagnosis(check, "warning", detail, "jobs wait until it responds; see its log")


def _engine(url: str, settings: Settings) -> Iterator[Diagnosis]:
    check = f"engine {url}"
    if url == _SCRIPTED:
        yield Diagnosis(check, "ok", "built in; generates answers without a model")
        return
    bearer = settings.engine_api_key.get_secret_value() if settings.engine_api_key else None
    status, models = client.probe(f"{url}/v1/models", seconds=_SECONDS, bearer=bearer)
    if status != _OK:
        configured = "engine_urls" in settings.model_fields_set
        detail = f"returns status {status}" if status else "no response"
        yield Diagnosis(
            check,
            "missing" if configured else "warning",
            detail,
            "start it, or check LONGLOOK_ENGINE_URLS",
        )
        return
    _, info = client.probe(f"{url}/server_info", seconds=_SECONDS, bearer=bearer)
    names = [str(model.get("id")) for model in models.get("data") or []]
    yield Diagnosis(check, "ok", f"{', '.join(names)}{_window(info)}")
    if names and settings.model not in names:
        yield Diagnosis(
            "model name",
            "missing",
            f"LONGLOOK_MODEL is {settings.model}, but the engine serves {', '.join(names)}",
            f"set LONGLOOK_MODEL={names[0]}",
        )


def _window(info: dict[str, Any]) -> str:
    """Return the limits that an engine reports, as text."""
    limits = [
        f"{info[field]} {unit}"
        for field, unit in (
            ("max_running_requests", "streams"),
            ("context_length", "tokens of context"),
        )
        if info.get(field)
    ]
    return f": {', '.join(limits)}" if limits else ""
