"""``longlook doctor``: checks the installation and the running service, with a remedy for every problem."""

import contextlib
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import typer

from api.serving.limits import OTHER_FILES
from cli import client, job_waiting, output
from cli.engine_plan import devices, plan
from cli.environments import build
from cli.launch import redis
from core import database, database_faults, errors, ids, peppers, redis_check
from core.outbound_proxy import OutboundProxy
from core.redis_prefix import RedisPrefix
from core.redis_url import RedisURL
from core.sandbox.confinement import FILES, LAYERS, SYSTEM_CALLS
from core.settings import Settings
from jobs.engine import EngineFacts
from jobs.images import ImageReader
from jobs.store import accounts, pauses, search, statistics, storage, workers
from migrations import schema
from webhooks import claims, secrets
from worker.engines import pool

Verdict = Literal["ok", "warning", "missing"]

_OK: Final = 200
_SECONDS: Final = 3.0
_SCRIPTED: Final = "scripted:"
#: Of the accounts that are near their quota, the first few are reported by name.
_NAMED_ACCOUNTS: Final = 5
_NEAR_QUOTA: Final = (storage.QuotaState.NEAR, storage.QuotaState.FULL)
#: From this share of its limit on, a full queue is announced.
_NEARLY_FULL: Final = 0.8
#: A key that expires earlier is reported; the first few of them by name.
_EXPIRES_SOON: Final = timedelta(days=14)
_NAMED_KEYS: Final = 5
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
    yield _redis(settings, knows_prefix=bool(settings.redis_prefix) or database_.verdict == "ok")
    yield from _api(settings)
    if settings.proxy is not None:
        yield _proxy(settings.proxy)
    if database_.verdict == "ok":
        yield from _deliveries(settings)
        yield from _vault(settings)
        yield from _keys(settings)
        yield from _pauses(settings)
        yield from _search_index(settings)
        yield _storage(settings)
        yield _queue_limit(settings)
    yield _open_files(settings)
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
        except database_faults.DatabaseUnavailable:
            return Diagnosis(
                check, "missing", f"no response from {shown}", "check LONGLOOK_DATABASE_URL"
            )
    if revision == head:
        return Diagnosis(check, "ok", f"{shown}, revision {revision}")
    if schema.fits(revision):
        detail = (
            f"{shown}, revision {revision} of a later version; this version, of {head}, works on it"
        )
        return Diagnosis(check, "ok", detail)
    detail = f"{shown}, revision {revision or 'none'}; this version needs {head}"
    return Diagnosis(check, "missing", detail, _way_to_head(revision))


def _way_to_head(revision: str | None) -> str:
    """Return the remedy for an earlier revision."""
    if revision == schema.COPYING:
        return "it is an unfinished copy: repeat `longlook db copy`"
    if schema.is_unreleased(revision):
        return "a version before the first release made it: start with a new database"
    return "run `longlook db upgrade`"


def _search_index(settings: Settings) -> Iterator[Diagnosis]:
    """Report that a reindex is due."""
    try:
        with _opened(settings) as opened:
            due, done = search.reindex_due(opened), search.reindexed(opened)
    except database_faults.DatabaseUnavailable:
        return
    if due:
        detail = (
            f"a reindex stopped or runs, after {done.jobs:,} jobs" if done else "a reindex is due"
        )
        remedy = (
            "run `longlook db reindex`; jobs run meanwhile, and searches are slower or miss jobs"
        )
        yield Diagnosis("search index", "warning", detail, remedy)


def _storage(settings: Settings) -> Diagnosis:
    """Check whether accounts are near their quotas, and whether the quotas fit on the disk."""
    check = "storage"
    try:
        with _opened(settings) as opened:
            rows = storage.accounts(opened, default_mb=settings.storage_mb_per_account)
    except database_faults.DatabaseUnavailable:
        return Diagnosis(check, "warning", "unknown: no response from the database")
    detail = f"{output.size(sum(row.usage.total for row in rows))}, accounts: {len(rows)}"
    near = [row for row in rows if row.usage.state in _NEAR_QUOTA]
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


def _queue_limit(settings: Settings) -> Diagnosis:
    """Check whether the queue is near its limit."""
    check, limit = "queue limit", settings.queued_jobs_total
    try:
        with _opened(settings) as opened:
            waiting = statistics.waiting(opened).values()
    except errors.Unavailable:
        return Diagnosis(check, "warning", "unknown: no response from the database")
    queued = sum(jobs.due + jobs.later for jobs in waiting)
    detail = f"{queued} of {limit} jobs; {settings.queued_jobs_per_account} for one account"
    if queued < _NEARLY_FULL * limit:
        return Diagnosis(check, "ok", detail)
    remedy = "add workers or engines: submissions get 429 at LONGLOOK_QUEUED_JOBS_TOTAL"
    return Diagnosis(check, "warning", detail, remedy)


def _open_files(settings: Settings) -> Diagnosis:
    """Check whether the limit of open files allows as many connections as the settings."""
    check, wanted = "open files", settings.max_connections + OTHER_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return Diagnosis(check, "ok", f"enough for {settings.max_connections} connections")
    return Diagnosis(
        check,
        "warning",
        f"at most {hard}, and LONGLOOK_MAX_CONNECTIONS needs {wanted}",
        "raise the limit (`ulimit -Hn`, LimitNOFILE=), or the API accepts fewer connections",
    )


def _redis(settings: Settings, *, knows_prefix: bool) -> Diagnosis:
    """Check the configured Redis, or else the server that ``longlook up`` starts."""
    if "redis_url" not in settings.model_fields_set:
        try:
            return Diagnosis("Redis", "ok", f"{redis.binary()}, started by `longlook up`")
        except errors.LaunchError as error:
            return Diagnosis("Redis", "missing", "no server is installed", str(error))
    prefix = RedisPrefix(settings)
    with RedisURL.parse(settings.redis_url).client(seconds=_SECONDS) as connection:
        problem = redis_check.problem(connection, prefix if knows_prefix else None)
    if problem is not None:
        remedy = (
            "start it, or check LONGLOOK_REDIS_URL; `Redis` in docs/how-to/operate.md has the ACL"
        )
        return Diagnosis("Redis", "missing", problem, remedy)
    if not knows_prefix:
        detail = "responds; the prefix of its keys is in the database"
        return Diagnosis("Redis", "warning", detail, "make the database available, then try again")
    return Diagnosis("Redis", "ok", f"takes wakeups at LONGLOOK_REDIS_URL, under `{prefix()}`")


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
            if name in job_waiting.LACKS and state != "ok":
                detail, _, remedy = job_waiting.LACKS[name].partition("; ")
                yield Diagnosis(str(name), "warning", detail, remedy)
        return
    yield Diagnosis(
        "API",
        "warning",
        f"no response from {settings.url}",
        "run `longlook up`, or check LONGLOOK_URL",
    )


def _proxy(proxy: OutboundProxy) -> Diagnosis:
    """Check that the proxy of webhooks and image URLs takes connections."""
    check, place = "outbound proxy", f"{proxy.scheme}://{proxy.host}:{proxy.port}"
    try:
        socket.create_connection((proxy.host, proxy.port), timeout=_SECONDS).close()
    except (OSError, ValueError) as error:
        remedy = "webhooks wait until it works: check LONGLOOK_OUTBOUND_PROXY"
        return Diagnosis(check, "warning", f"no connection to {place}: {error}", remedy)
    return Diagnosis(check, "ok", f"takes connections at {place}")


def _why(ready: dict[str, Any]) -> str:
    """Return the failed checks of ``/readyz`` as a remedy."""
    failed = [
        f"{name} is {state}" for name, state in (ready.get("checks") or {}).items() if state != "ok"
    ]
    return f"{', '.join(failed)}; see its log" if failed else "see its log"


def _decoder(settings: Settings) -> Diagnosis:
    """Start the image decoder, and check how far the kernel confines it."""
    check, meanings = "image decoder", {FILES: "other files", SYSTEM_CALLS: "the network"}
    # Of its processes, one is enough to check.
    images = ImageReader.start(settings.model_copy(update={"sandbox_processes": 0}))
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
    except database_faults.DatabaseUnavailable:
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


def _vault(settings: Settings) -> Iterator[Diagnosis]:
    """Check that the vault opens the webhook secrets of the database."""
    try:
        with _opened(settings) as opened:
            secrets.check_vault(secrets.installation_vault(settings, opened), opened)
    except errors.VaultError as error:
        yield Diagnosis("vault", "missing", str(error), "no webhook can be sent without it")
    except database_faults.DatabaseUnavailable:
        return
    else:
        yield Diagnosis("vault", "ok", "opens the webhook secrets")


def _keys(settings: Settings) -> Iterator[Diagnosis]:
    """Report keys that expire soon, and check that the peppers fit the keys."""
    try:
        with _opened(settings) as opened:
            rows = accounts.keys(opened)
    except database_faults.DatabaseUnavailable:
        return
    now = database.utcnow()
    live = [row for row in rows if row.is_live(now)]
    if not live:
        return
    ending = [row for row in live if row.expires_at and row.expires_at - now < _EXPIRES_SOON]
    detail = f"{len(live)} live keys"
    if ending:
        named = ", ".join(
            f"{row.name or ids.show('key', row.key_id)} on {row.expires_at:%Y-%m-%d}"
            for row in sorted(ending, key=lambda row: row.expires_at or now)[:_NAMED_KEYS]
        )
        detail += f"; {len(ending)} of them expire within {_EXPIRES_SOON.days} days: {named}"
        remedy = "create new keys with `longlook keys create`, and give them to the clients"
        yield Diagnosis("keys", "warning", detail, remedy)
    else:
        yield Diagnosis("keys", "ok", detail)
    yield _peppers(settings, live)


def _peppers(settings: Settings, live: list[accounts.KeyRow]) -> Diagnosis:
    """Check that there is a pepper for each live key, and whether a rotation has ended."""
    try:
        known = peppers.read(settings)
    except errors.SettingsError as error:
        return Diagnosis("pepper", "missing", str(error), "no key is valid without it")
    lost = accounts.without_pepper(live, known)
    if lost:
        detail = f"{len(lost)} of {len(live)} live keys are hashed with another pepper"
        return Diagnosis("pepper", "missing", detail, "restore the pepper of this database")
    if len(known) == 1:
        return Diagnosis("pepper", "ok", "fits the keys")
    left = accounts.without_pepper(live, known[:1], or_unknown=True)
    if not left:
        remedy = "run `longlook keys rotate-pepper --finish`"
        return Diagnosis("pepper", "warning", "all live keys use the newest of several", remedy)
    detail = f"{len(left)} of {len(live)} live keys were not used since the pepper was rotated"
    remedy = (
        "`longlook keys ls` shows when each was last used; once they are used or revoked, "
        "`longlook keys rotate-pepper --finish` ends the rotation"
    )
    return Diagnosis("pepper", "warning", detail, remedy)


def _pauses(settings: Settings) -> Iterator[Diagnosis]:
    """Report each active pause of the queue."""
    try:
        with _opened(settings) as opened:
            active = pauses.active(opened)
            names = accounts.key_names(opened, [pause.paused_by for pause in active])
    except database_faults.DatabaseUnavailable:
        return
    for pause in active:
        since = pause.paused_at.isoformat(timespec="seconds")
        reason = f": {pause.reason}" if pause.reason else ""
        by = names.get(pause.paused_by, pause.paused_by)
        yield Diagnosis(
            "queue",
            "warning",
            f"paused: {pause.scope}, since {since} by {by}{reason}",
            "`longlook queue resume` with the same --account and --priority ends it",
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
    except database_faults.DatabaseUnavailable:
        return []
    return workers.engines(seen)


def _reported(engine: workers.EngineState) -> Diagnosis:
    check = f"engine {engine.url}"
    if engine.cordoned:
        remedy = "`longlook engines uncordon` gives it new jobs"
        return Diagnosis(check, "warning", "cordoned: it gets no new jobs", remedy)
    if engine.state == "ok":
        window = f": {engine.window} streams" if engine.window else ""
        return Diagnosis(check, "ok", f"{engine.model}{window}, reported by the workers")
    why = f": {engine.reason}" if engine.reason else ""
    detail = f"{engine.state}, reported by the workers{why}"
    return Diagnosis(check, "warning", detail, "jobs wait until it responds; see its log")


def _engine(url: str, settings: Settings) -> Iterator[Diagnosis]:
    """Check an engine as the workers do."""
    check = f"engine {url}"
    if url == _SCRIPTED:
        yield Diagnosis(check, "ok", "built in; generates answers without a model")
        return
    checked = pool.check_url(url, settings)
    if checked.facts is None:
        configured = "engine_urls" in settings.model_fields_set
        yield Diagnosis(
            check,
            "missing" if configured else "warning",
            f"away: {checked.reason}",
            "start it, or check LONGLOOK_ENGINE_URLS",
        )
        return
    yield Diagnosis(check, "ok", f"{checked.facts.model}{_limits(checked.facts)}")
    if settings.model != checked.facts.model:
        yield Diagnosis(
            "model name",
            "missing",
            f"LONGLOOK_MODEL is {settings.model}, but the engine serves {checked.facts.model}",
            f"set LONGLOOK_MODEL={checked.facts.model}",
        )


def _limits(facts: EngineFacts) -> str:
    """Return the limits that an engine reports, as text."""
    context = f", {facts.context_tokens} tokens of context" if facts.context_tokens else ""
    return f": {facts.window} streams{context}"
