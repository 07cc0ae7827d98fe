"""``longlook doctor``: what is installed, reachable or missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import redis as redis_client
import typer

from cli import client, output
from cli.environments import build
from cli.launch import redis
from cli.launch.engine import EngineRoom
from core import database, errors
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
#: An account that stores this share of its quota is told of, of several the first.
_NEAR: Final = 0.9
_NAMED: Final = 5
#: A try that is due for longer is told of.
_LATE: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at; ``remedy`` says what to do when it is not ok."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    @property
    def reported(self) -> str:
        """What was found and, on a line of its own, what to do."""
        detail = output.inline(self.detail)
        return f"{detail}\n-> {output.inline(self.remedy)}" if self.remedy else detail


def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")] = False,
) -> None:
    """Look at everything the service needs here. Exit code 1 when something needed is missing."""
    findings = list(examine(Settings.read(), context.obj))
    if output.for_people(as_json=as_json):
        output.table(
            ("verdict", "what", "found"),
            [(one.verdict, output.inline(one.what), one.reported) for one in findings],
            multiline=True,
        )
    else:
        output.as_json([asdict(one) for one in findings])
    if any(one.verdict == "missing" for one in findings):
        raise typer.Exit(output.Exit.FAILED)


def examine(settings: Settings, room: EngineRoom) -> Iterator[Diagnosis]:
    """Look at one thing after the other. ``missing`` is what jobs cannot run without."""
    yield Diagnosis("Python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _disk(settings)
    stored = _database(settings)
    yield stored
    yield _redis(settings)
    yield _api(settings)
    if stored.verdict == "ok":
        yield from _deliveries(settings)
        yield _storage(settings)
    yield _decoder(settings)
    yield _engine_environment(settings, room)
    yield _gpus(room)
    # Those that `longlook up` started are at ports that no setting names; its workers tell of them.
    requested = "engine_urls" in settings.model_fields_set or stored.verdict != "ok"
    reported = [] if requested else _engines_of_workers(settings)
    for engine in reported:
        yield _reported(engine)
    for url in () if reported else settings.engine_urls:
        yield from _engine(url, settings)


def _disk(settings: Settings) -> Diagnosis:
    there = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(there).free // 2**20
    detail = f"{free} MiB free at {there}"
    if free >= settings.disk_floor_mb:
        return Diagnosis("disk", "ok", detail)
    return Diagnosis(
        "disk",
        "missing",
        detail,
        f"free some: jobs are accepted from {settings.disk_floor_mb} MiB on",
    )


def _database(settings: Settings) -> Diagnosis:
    what, head = "database", ", ".join(schema.heads())
    if not settings.database_url and not (settings.home / "longlook.db").exists():
        return Diagnosis(what, "warning", "not made yet", "`longlook up` makes it")
    opened = database.Database(settings.database)
    shown = opened.url.render_as_string(hide_password=True)
    try:
        revision = schema.current(opened)
    except database.DatabaseUnavailable:
        return Diagnosis(what, "missing", f"{shown} does not answer", "see LONGLOOK_DATABASE_URL")
    finally:
        opened.close()
    if revision == head:
        return Diagnosis(what, "ok", f"{shown}, revision {revision}")
    detail = f"{shown}, revision {revision or 'none'}; this version has {head}"
    return Diagnosis(what, "missing", detail, "`longlook db upgrade`, or the version that fits")


def _storage(settings: Settings) -> Diagnosis:
    """Look at what accounts store: whether one is near its quota, and whether quotas leave the disk room."""
    what = "storage"
    opened = database.Database(settings.database)
    try:
        rows = storage.accounts(opened, default_mb=settings.storage_mb_per_account)
    except database.DatabaseUnavailable:
        return Diagnosis(what, "warning", "not known: the database does not answer")
    finally:
        opened.close()
    detail = f"{output.size(sum(row.usage.total for row in rows))}, accounts: {len(rows)}"
    near = [row for row in rows if row.usage.limit and row.usage.total >= _NEAR * row.usage.limit]
    if near:
        names = output.printable(", ".join(row.name for row in near[:_NAMED]))
        remedy = "they have to delete jobs or images, or need `longlook accounts limit`"
        return Diagnosis(
            what, "warning", f"{detail}; near their quota: {len(near)} ({names})", remedy
        )
    unlimited = [row for row in rows if row.usage.limit is None]
    if unlimited:
        remedy = "LONGLOOK_STORAGE_MB_PER_ACCOUNT, or `longlook accounts limit`"
        return Diagnosis(what, "warning", f"{detail}; without a quota: {len(unlimited)}", remedy)
    left = sum(max(0, (row.usage.limit or 0) - row.usage.total) for row in rows)
    if settings.database.startswith("sqlite") and left > shutil.disk_usage(settings.home).free:
        remedy = "smaller quotas, or a larger disk: a full one refuses everybody"
        reported = (
            f"{detail}; the quotas allow {output.size(left)} more than that, the disk does not"
        )
        return Diagnosis(what, "warning", reported, remedy)
    return Diagnosis(what, "ok", detail)


def _redis(settings: Settings) -> Diagnosis:
    """Look at the Redis that is set; without one, for the server that ``longlook up`` starts."""
    if "redis_url" not in settings.model_fields_set:
        try:
            return Diagnosis("Redis", "ok", f"{redis.binary()}, started by `longlook up`")
        except errors.LaunchError as error:
            return Diagnosis("Redis", "missing", "no server found", str(error))
    connection = redis_client.Redis.from_url(
        settings.redis_url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
    )
    try:
        connection.ping()
    except redis_client.RedisError:
        return Diagnosis(
            "Redis", "missing", "does not answer", "start it, or see LONGLOOK_REDIS_URL"
        )
    finally:
        connection.close()
    return Diagnosis("Redis", "ok", "answers at LONGLOOK_REDIS_URL")


def _api(settings: Settings) -> Diagnosis:
    status, _ = client.probe(f"{settings.url}/readyz", seconds=_SECONDS)
    if status == _OK:
        return Diagnosis("API", "ok", f"takes jobs at {settings.url}")
    if status:
        return Diagnosis("API", "missing", f"{settings.url}/readyz says {status}", "see its log")
    return Diagnosis(
        "API", "warning", f"nothing answers at {settings.url}", "`longlook up`, or see LONGLOOK_URL"
    )


def _decoder(settings: Settings) -> Diagnosis:
    """Start what decodes images, and see how far the kernel confines it."""
    what, meanings = "image decoder", {FILES: "other files", SYSTEM_CALLS: "the network"}
    images = ImageReader.start(settings)
    try:
        images.warm()
        confined = images.confined
    except errors.Unavailable as error:
        return Diagnosis(what, "missing", "it does not start", str(error))
    finally:
        images.close()
    open_to_it = [meanings[layer] for layer in LAYERS if layer not in confined]
    if not open_to_it:
        return Diagnosis(what, "ok", "confined: no other files, no network, no programs")
    return Diagnosis(
        what,
        "warning",
        f"not kept from {' and '.join(open_to_it)}",
        "a kernel with Landlock and seccomp: Linux 5.13 or newer, on x86-64 or AArch64",
    )


def _deliveries(settings: Settings) -> Iterator[Diagnosis]:
    """Look at what is still to be told to receivers, and whether somebody tells it."""
    opened = database.Database(settings.database)
    try:
        backlog, pause = claims.backlog(opened), claims.pause(opened)
    except database.DatabaseUnavailable:
        return
    finally:
        opened.close()
    detail = f"{backlog.pending} to be told"
    if backlog.oldest is not None:
        detail += f", the first for {backlog.oldest.total_seconds():.0f} s"
    if pause is None or pause > -_LATE:
        yield Diagnosis("webhooks", "ok", detail)
        return
    yield Diagnosis(
        "webhooks",
        "warning",
        f"{detail}; a try has been due for {-pause.total_seconds():.0f} s",
        "`celery -A webhooks.app worker` has to run; or receivers are slow: see its log",
    )


def _engine_environment(settings: Settings, room: EngineRoom) -> Diagnosis:
    what = "engine's environment"
    try:
        python = room.plan(settings, 0).python or Path(sys.executable)
    except errors.LaunchError as error:
        return Diagnosis(what, "warning", "not for this model", str(error))
    if build.is_whole(python):
        return Diagnosis(what, "ok", str(python))
    return Diagnosis(
        what,
        "warning",
        f"{python} is missing or unfinished",
        "`longlook engine install`, for the small model",
    )


def _gpus(room: EngineRoom) -> Diagnosis:
    found = [f"{gpu.name} ({gpu.memory:.0f} GiB)" for gpu in room.devices(os.environ)]
    if found:
        return Diagnosis("GPUs", "ok", ", ".join(found))
    return Diagnosis("GPUs", "warning", "none usable", "the small model needs none; QVQ-72B does")


def _engines_of_workers(settings: Settings) -> list[workers.EngineState]:
    """Return the engines as the live workers see them, none without one."""
    opened = database.Database(settings.database)
    try:
        seen = workers.seen(opened, alive=timedelta(seconds=settings.lease_seconds))
    except database.DatabaseUnavailable:
        return []
    finally:
        opened.close()
    return workers.engines(seen)


def _reported(engine: workers.EngineState) -> Diagnosis:
    what = f"engine {engine.url}"
    if engine.state == "ok":
        window = f": {engine.window} streams" if engine.window else ""
        return Diagnosis(what, "ok", f"{engine.model}{window}, as the workers see it")
    detail = f"{engine.state}, as the workers see it"
    return Diagnosis(what, "warning", detail, "jobs wait until it is back; see its log")


def _engine(url: str, settings: Settings) -> Iterator[Diagnosis]:
    what = f"engine {url}"
    if url == _SCRIPTED:
        yield Diagnosis(what, "ok", "built in; its answers are made up")
        return
    bearer = settings.engine_api_key.get_secret_value() if settings.engine_api_key else None
    status, models = client.probe(f"{url}/v1/models", seconds=_SECONDS, bearer=bearer)
    if status != _OK:
        requested = "engine_urls" in settings.model_fields_set
        found = f"says {status}" if status else "does not answer"
        yield Diagnosis(
            what,
            "missing" if requested else "warning",
            found,
            "start it, or see LONGLOOK_ENGINE_URLS",
        )
        return
    _, info = client.probe(f"{url}/server_info", seconds=_SECONDS, bearer=bearer)
    names = [str(model.get("id")) for model in models.get("data") or []]
    yield Diagnosis(what, "ok", f"{', '.join(names)}{_window(info)}")
    if names and settings.model not in names:
        yield Diagnosis(
            "model's name",
            "missing",
            f"LONGLOOK_MODEL is {settings.model}, the engine serves {', '.join(names)}",
            f"LONGLOOK_MODEL={names[0]}",
        )


def _window(info: dict[str, Any]) -> str:
    """Return what an engine says of its limits."""
    words = [
        f"{info[field]} {unit}"
        for field, unit in (
            ("max_running_requests", "streams"),
            ("context_length", "tokens of context"),
        )
        if info.get(field)
    ]
    return f": {', '.join(words)}" if words else ""
