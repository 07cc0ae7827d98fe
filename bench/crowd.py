"""Millions of jobs in seconds: rows that the database itself generates, as months of work leave them.

The jobs' times and ids are spread over :data:`DAYS`. Most jobs have ended; the last ones run or wait.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from core import ids
from core.database import Database, utcnow
from jobs.lifecycle import TURN_STEP, OperationAction, Priority, Role, Status
from jobs.records.declarative import table
from jobs.records.images import Image
from jobs.records.operations import Operation
from jobs.store import accounts
from webhooks.tables import WebhookQueue

DAYS = 180
#: Of the image that a twentieth of the jobs have.
IMAGE_SHA256 = "a" * 64
#: A word in the traces of the first jobs, and how many they are.
OLD_WORD, OLD_WORDS = "zebrafish", 3_000
#: Words in a text of every job of a crowd with texts; the third is a phrase of their words that no text has.
FREQUENT_WORD, FREQUENT_PHRASE, SHUFFLED_PHRASE = "circles", "a long look", "look long a"
#: The worker that holds the running jobs, and one that lost the first :data:`LOST` of those with an attempt.
OWNER, LOSER = "crowd", "loser"
LOST = 500
_MOST_AT_ONCE = 50_000
#: The age of the first job that has not ended.
_RECENT = timedelta(minutes=30)


@dataclass(frozen=True)
class Crowd:
    """What a filled database has.

    Attributes:
        jobs: the number of jobs.
        accounts: three accounts with about two thirds, a third, and a thousandth of the jobs.
        image_id: an image of a twentieth of the jobs.
        held: the running jobs of :data:`OWNER`, with their attempts.
        last: the job that was queued last.
        operations: a cancel and a rerun, of a tenth of the ended jobs each.
    """

    jobs: int
    accounts: tuple[uuid.UUID, uuid.UUID, uuid.UUID]
    image_id: uuid.UUID
    held: list[tuple[uuid.UUID, int]]
    last: uuid.UUID
    operations: tuple[uuid.UUID, uuid.UUID]


@dataclass(frozen=True)
class _Sql:
    """How a database generates rows: ``n`` is the number of a row, ``at`` its creation in seconds since 1970."""

    rows: str
    id: str
    case: str

    def time(self, seconds: str) -> str:
        """Return a time."""
        if self.id.startswith("printf"):
            return f"(strftime('%Y-%m-%d %H:%M:%f', {seconds}, 'unixepoch') || '000')"
        return f"to_timestamp({seconds})"


#: The ended jobs are spread over the days, the others over the last minutes.
_AT = "(CASE WHEN n < :runs THEN :start + n * :step ELSE :recent + (n - :runs) * :short END)"
_SQL = {
    "sqlite": _Sql(
        rows="(WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s WHERE n < :last)"
        f" SELECT n, {_AT} AS at FROM s) AS generated",
        id="printf('%012x7%03x8%015x', CAST(at * 1000 AS INTEGER), n % 4096, n)",
        case="('{\"fleet\": \"' || CASE WHEN n % 100 = 0 THEN 'b' ELSE 'a' END || '\", \"case\": \"' || n || '\"}')",
    ),
    "postgresql": _Sql(
        rows=f"(SELECT n, CAST({_AT} AS double precision) AS at"
        " FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n) AS generated",
        id="CAST(lpad(to_hex(CAST(floor(at * 1000) AS bigint)), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0')"
        " || '8' || lpad(to_hex(n), 15, '0') AS uuid)",
        case="jsonb_build_object('fleet', CASE WHEN n % 100 = 0 THEN 'b' ELSE 'a' END, 'case', CAST(n AS text))",
    ),
}


def fill(
    database: Database,
    jobs: int,
    *,
    queued: int = 1_000,
    running: int = 64,
    attempts_every: int = 10,
    texts: bool = False,
    days: float = DAYS,
) -> Crowd:
    """Store ``jobs`` jobs of three accounts in an empty database, and gather statistics on PostgreSQL.

    Args:
        database: an empty database of this version.
        jobs: the number of jobs, of which the last are queued and running.
        queued: how many of them wait.
        running: how many of them run.
        attempts_every: one of this many ended jobs has an attempt with a generation; all running ones have.
        texts: whether each job has a text with frequent words, as questions and traces have.
        days: the time over which the ended jobs are spread.
    """
    owners = (
        _account(database, "large"),
        _account(database, "middle"),
        _account(database, "small"),
    )
    image_id = _image(database, owners[0])
    operations = [
        _operation(database, owners[0], action)
        for action in (OperationAction.CANCEL, OperationAction.RERUN)
    ]
    waits, runs = jobs - queued, jobs - queued - running
    now = utcnow()
    start = now - timedelta(days=days)
    recent = now - _RECENT
    bound = {
        "start": start.timestamp(),
        "step": (recent - start).total_seconds() / runs,
        "recent": recent.timestamp(),
        "short": _RECENT.total_seconds() / (jobs - runs),
        "waits": waits,
        "runs": runs,
        "now": now.timestamp(),
        "every": attempts_every,
        "image": image_id.hex,
        "cancellation": operations[0].hex,
        "repetition": operations[1].hex,
        "receivers": _receivers(database, owners[0]).hex,
    } | {f"account{number}": owner.hex for number, owner in enumerate(owners)}
    statements = _statements(database.dialect, texts=texts)
    for first in range(0, jobs, _MOST_AT_ONCE):
        last = min(jobs, first + _MOST_AT_ONCE) - 1
        with database.engine.connect() as connection:
            if database.dialect == "postgresql":
                # Neither foreign keys nor the triggers that count bytes.
                connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            for statement in statements:
                connection.execute(sa.text(statement), bound | {"first": first, "last": last})
            connection.commit()
    _finish(database)
    with database.reading() as transaction:
        held = transaction.execute(
            sa.text("SELECT id, attempt FROM jobs WHERE lease_owner = :owner ORDER BY id").columns(
                id=sa.Uuid(), attempt=sa.Integer()
            ),
            {"owner": OWNER},
        ).all()
        newest = transaction.execute(
            sa.text("SELECT id FROM jobs ORDER BY id DESC LIMIT 1").columns(id=sa.Uuid())
        ).scalar_one()
    held_jobs = [(row.id, row.attempt) for row in held]
    return Crowd(jobs, owners, image_id, held_jobs, newest, (operations[0], operations[1]))


def _account(database: Database, name: str) -> uuid.UUID:
    accounts.create_key(
        database, accounts.new_key(), pepper=b"p", account=name, role=Role.SUBMIT, name="bench"
    )
    return accounts.account_id(database, name)


def _image(database: Database, account_id: uuid.UUID) -> uuid.UUID:
    """Insert the row of an image without its bytes, which are never read."""
    image_id = ids.new()
    facts = {
        "id": image_id, "account_id": account_id, "image_key": "key", "detail": "standard", "pipeline": "1",
        "media_type": "image/png", "width": 28, "height": 28, "original_sha256": IMAGE_SHA256, "original_bytes": 100,
        "original_media_type": "image/png", "original_width": 28, "original_height": 28, "orientation": 1, "frames": 1,
        "created_at": utcnow(),
    }  # fmt: skip
    with database.transaction() as transaction:
        transaction.execute(sa.insert(table(Image)), [facts])
    return image_id


def _receivers(database: Database, account_id: uuid.UUID) -> uuid.UUID:
    """Insert the queue of a receiver."""
    queue_id = ids.new()
    facts = {
        "id": queue_id, "account_id": account_id, "origin": "https://receiver.example", "failures": 0,
        "served_at": utcnow(),
    }  # fmt: skip
    with database.transaction() as transaction:
        transaction.execute(sa.insert(table(WebhookQueue)), [facts])
    return queue_id


def _operation(database: Database, account_id: uuid.UUID, action: OperationAction) -> uuid.UUID:
    """Insert an operation that has ended."""
    operation_id, now = ids.new(), utcnow()
    facts = {
        "id": operation_id, "account_id": account_id, "key_id": ids.new(), "key_name": "bench", "action": action,
        "query": "", "status": Status.SUCCEEDED, "max_jobs": 1, "total": 0, "done": 0, "skipped": 0, "failed": 0,
        "reasons": {}, "not_before": now, "served_at": now, "request_id": "req_bench", "created_at": now,
        "finished_at": now,
    }  # fmt: skip
    with database.transaction() as transaction:
        transaction.execute(sa.insert(table(Operation)), [facts])
    return operation_id


def _statements(dialect: str, *, texts: bool) -> list[str]:
    """Return the statements that insert the rows from ``:first`` to ``:last``."""
    sql = _SQL[dialect]
    later, at = sql.time(":now + 3600"), sql.time("at")
    account = (
        "CASE WHEN n % 1000 = 7 THEN :account2 WHEN n % 3 = 0 THEN :account1 ELSE :account0 END"
    )
    if dialect == "postgresql":
        account = f"CAST({account} AS uuid)"
    status = (
        "CASE WHEN n >= :waits THEN 'queued' WHEN n >= :runs THEN 'running' WHEN n % 100 < 3 THEN 'failed'"
        " WHEN n % 100 = 3 THEN 'cancelled' ELSE 'succeeded' END"
    )
    error = (
        "CASE WHEN n >= :runs OR n % 100 > 2 THEN NULL WHEN n < 1000 THEN 'engine_rejected'"
        " WHEN n % 100 = 0 THEN 'engine_fault' WHEN n % 100 = 1 THEN 'worker_lost' ELSE 'deadline_exceeded' END"
    )
    running, notified = "n >= :runs AND n < :waits", "n < :runs AND n % 20 = 1"
    lost = f"n < {LOST} * :every AND n % :every = 0"
    values = {
        "id": sql.id,
        "account_id": account,
        "status": status,
        "model": "'tiny-qvq'",
        "question": "'How many circles are there?'",
        "options": "'{}'",
        "metadata": sql.case,
        "priority": "'normal'",
        "ordering_at": at,
        "not_before": at,
        "deadline_at": later,
        "attempt": "CASE WHEN n >= :waits THEN 0 ELSE 1 END",
        "crashes": f"CASE WHEN {lost} THEN 1 ELSE 0 END",
        "failures": "0",
        "max_attempts": "5",
        "lease_owner": f"CASE WHEN {running} THEN '{OWNER}' END",
        "lease_expires_at": f"CASE WHEN {running} THEN {later} END",
        "error_code": error,
        # Itself: other ids are not at hand.
        "rerun_of": f"CASE WHEN n < :runs AND n % 100 = 50 THEN {sql.id} END",
        "request_id": "'req_bench'",
        "created_at": at,
        "started_at": f"CASE WHEN n < :waits THEN {at} END",
        "finished_at": f"CASE WHEN n < :runs THEN {sql.time('at + 60')} END",
    }
    if dialect == "postgresql":
        values["options"] = "CAST('{}' AS jsonb)"
    attempted = f"({running} OR (n < :runs AND n % :every = 0))"
    ended = f"CASE WHEN n < :runs THEN {sql.time('at + 60')} END"
    frequent = (
        "INSERT INTO search_texts (job_id, account_id, part, text)"
        f" SELECT {sql.id}, {account}, 'question', 'let me take {FREQUENT_PHRASE} at case ' || n ||"
        f" ' : how many {FREQUENT_WORD} are there in the image ?' FROM {sql.rows}"
    )
    statements = [
        f"INSERT INTO jobs ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {sql.rows}",
        (
            "INSERT INTO attempts (job_id, number, worker, claimed_at, ended_at, outcome, engine) SELECT"
            f" {sql.id}, 1, CASE WHEN {lost} THEN '{LOSER}' ELSE '{OWNER}' END, {at}, {ended},"
            f" CASE WHEN n < :runs THEN CASE WHEN {lost} THEN 'lost' ELSE 'succeeded' END END,"
            f" 'http://engine-' || ((n / :every) % 3) FROM {sql.rows} WHERE {attempted}"
        ),
        (
            "INSERT INTO generations (job_id, attempt, number, rid, output_tokens, started_at, first_token_at,"
            f" ended_at, output) SELECT {sql.id}, 1, 0, 'rid', 100, {at}, {sql.time('at + 1')}, {ended},"
            f" CASE WHEN n < :runs THEN 'Six.' END FROM {sql.rows} WHERE {attempted}"
        ),
        (
            f"INSERT INTO job_images (job_id, position, image_id, tokens) SELECT {sql.id}, 0, "
            f"{_parameter(dialect, 'image')}, 4 FROM {sql.rows} WHERE n % 20 = 0"
        ),
        (
            "INSERT INTO operation_jobs (operation_id, job_id, result, new_job_id)"
            f" SELECT {_parameter(dialect, 'cancellation')}, {sql.id}, 'done', NULL FROM {sql.rows}"
            " WHERE n < :runs AND n % 10 = 4"
        ),
        (
            "INSERT INTO operation_jobs (operation_id, job_id, result, new_job_id)"
            f" SELECT {_parameter(dialect, 'repetition')}, {sql.id}, 'done', {sql.id} FROM {sql.rows}"
            " WHERE n < :runs AND n % 10 = 5"
        ),
        (
            "INSERT INTO webhook_notifications (id, account_id, type, job_id, payload, created_at)"
            f" SELECT {sql.id}, {account}, 'job.succeeded', {sql.id}, '', {at} FROM {sql.rows} WHERE {notified}"
        ),
        (
            "INSERT INTO webhook_deliveries (id, notification_id, queue_id, url, status, attempt_count, created_at)"
            f" SELECT {sql.id}, {sql.id}, {_parameter(dialect, 'receivers')}, '', 'delivered', 1, {at}"
            f" FROM {sql.rows} WHERE {notified}"
        ),
        (
            "INSERT INTO webhook_attempts"
            " (id, delivery_id, queue_id, number, kind, step, state, due_at, ended_at, outcome)"
            f" SELECT {sql.id}, {sql.id}, {_parameter(dialect, 'receivers')}, 1, 'automatic', 0, 'ended', {at},"
            f" {sql.time('at + 60')}, 'delivered' FROM {sql.rows} WHERE {notified}"
        ),
        (
            "INSERT INTO search_texts (job_id, account_id, part, text)"
            f" SELECT {sql.id}, {account}, 'trace', '{OLD_WORD} at night' FROM {sql.rows}"
            f" WHERE n < {OLD_WORDS}"
        ),
        (
            "INSERT INTO queue_turns (account_id, priority, step, next_turn, served_turn)"
            f" SELECT DISTINCT {account}, 'normal', {TURN_STEP[Priority.NORMAL]}, 0, 0 FROM {sql.rows}"
            " WHERE n >= :waits ON CONFLICT DO NOTHING"
        ),
    ]
    return [*statements, frequent] if texts else statements


def _parameter(dialect: str, name: str) -> str:
    return f"CAST(:{name} AS uuid)" if dialect == "postgresql" else f":{name}"


def _finish(database: Database) -> None:
    """Forget the changes of stored bytes that the triggers have noted, and gather statistics on PostgreSQL."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM storage_changes")
        connection.commit()
    if database.dialect == "postgresql":
        with database.engine.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        ) as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM ANALYZE")
        database.close()
