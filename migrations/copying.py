"""Copies a whole database to another one, in either direction between SQLite and PostgreSQL.

Rows go over in short transactions, each with the key up to which its table is copied, so a copy that is killed
continues. Until the end the target is at the revision :data:`migrations.schema.COPYING`, at which no process starts.
At the end the rows of both are counted and hashed: a source that changed meanwhile is noticed.
"""

import contextlib
import enum
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction
from jobs.records.declarative import Record, table
from jobs.records.jobs import Job
from jobs.store import workers
from migrations import schema
from webhooks import tables  # noqa: F401 - its tables are records, too

#: Opens a block of reads of the source.
Reading = Callable[[], contextlib.AbstractContextManager[Transaction]]
#: Called with the name of a table and the number of its rows that are copied.
Progress = Callable[[str, int], object]

#: A worker that was seen within this time may still write.
_ALIVE: Final = timedelta(minutes=1)
_ROWS: Final = 500
#: Rows of one transaction in tables with large values.
_LARGE: Final = {
    "image_bytes": 4,
    "file_chunks": 4,
    "generations": 50,
    "search_texts": 50,
    "attempts": 100,
}
#: Triggers write these rows too, so they are copied last.
_COUNTED: Final = ("storage_totals", "storage_changes")
#: What is not copied: the target has an id of its own, so that both may use one Redis.
_OWN: Final = ("installation",)
#: References to rows of the same table that may come later.
_LATER: Final = ("rerun_of", "group_id")
_SHA256_VALUES: Final = 2**256

_PROGRESS = sa.Table(
    "longlook_copy",
    sa.MetaData(),
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
)
#: The name of the row with the source.
_SOURCE = "source"


def copy(
    source: Database,
    target: Database,
    *,
    reading: Reading | None = None,
    name: str | None = None,
    progress: Progress = lambda _name, _count: None,
) -> int:
    """Copy all rows, check them, and set the sequences; return the number of rows.

    Args:
        source: at this version's revision. No process may write to it meanwhile.
        target: empty, or left by a copy of the same source that did not end.
        reading: opens the reads of the source, for example in one snapshot. None: each batch reads what is there, and
            the call is refused while workers are alive.
        name: what the source is called, so that only a copy of the same one continues. None: its URL without password.
        progress: called after each batch.

    Raises:
        core.errors.LaunchError: a database is not fit for it, or the source changed meanwhile; the message says why.
        core.database_faults.DatabaseUnavailable: one of them does not answer; another call continues.
    """
    if reading is None:
        reading = source.reading
        if workers.workforce(source, alive=_ALIVE).processes:
            raise errors.LaunchError(
                "Workers use the source. Stop all processes, wait a minute, and repeat the command."
            )
    _require_head(source)
    _prepare(target, name or source.url.render_as_string(hide_password=True))
    ordered = [each for each in _tables() if each.name not in _COUNTED]
    ordered += [Record.metadata.tables[name] for name in _COUNTED]
    for each in ordered:
        _copy_table(reading, target, each, progress)
    _copy_later(reading, target)
    rows = _compare(reading, target, ordered)
    _finish(target)
    return rows


def _tables() -> list[sa.Table]:
    """Return the tables that are copied, those that others refer to first."""
    return [each for each in Record.metadata.sorted_tables if each.name not in _OWN]


def _require_head(source: Database) -> None:
    revision = schema.current(source)
    if revision not in schema.heads():
        raise errors.LaunchError(
            f"The source is at revision {revision or 'none'}; this version needs {', '.join(schema.heads())}: "
            "run `longlook db upgrade` on it first."
        )


def _prepare(target: Database, name: str) -> None:
    """Create the tables of an empty target, or check that it is an unfinished copy of this source."""
    if schema.current(target) == schema.COPYING:
        with target.reading() as transaction:
            begun = transaction.execute(
                sa.select(_PROGRESS.c.value).where(_PROGRESS.c.name == _SOURCE)
            ).scalar_one()
        if begun != name:
            raise errors.LaunchError(
                f"The target has an unfinished copy of {begun}. Finish that one, or use an empty database."
            )
        return
    schema.upgrade(target.url.render_as_string(hide_password=False))
    with target.transaction() as transaction:
        for each in _tables():
            if transaction.execute(sa.select(sa.literal(1)).select_from(each).limit(1)).first():
                raise errors.LaunchError(
                    f"The target is not empty: {each.name} has rows. Use an empty database."
                )
        transaction.execute(sa.schema.CreateTable(_PROGRESS))
        transaction.execute(sa.insert(_PROGRESS), {"name": _SOURCE, "value": name})
        schema.mark(transaction, schema.COPYING)


def _copy_table(reading: Reading, target: Database, what: sa.Table, progress: Progress) -> None:
    count = 0
    after = _reached(target, what)
    while True:
        with reading() as transaction:
            rows = _page(transaction, what, after)
        if not rows and after is not None:
            return
        with target.transaction("copy") as transaction:
            if after is None and what.name in _COUNTED:
                transaction.execute(sa.delete(what))
            if rows:
                transaction.execute(sa.insert(what), [_row(what, row) for row in rows])
                after = _key(what, rows[-1])
                _keep(transaction, what, after)
        count += len(rows)
        progress(what.name, count)
        if not rows:
            return


def _page(
    transaction: Transaction, what: sa.Table, after: Sequence[Any] | None
) -> Sequence[sa.RowMapping]:
    """Return the next rows in the order of the key, which only the source needs to agree with."""
    keys = list(what.primary_key.columns)
    statement = sa.select(what).order_by(*keys).limit(_LARGE.get(what.name, _ROWS))
    if after is not None:
        values = [sa.literal(value, key.type) for key, value in zip(keys, after, strict=True)]
        statement = statement.where(
            sa.tuple_(*keys) > sa.tuple_(*values) if len(keys) > 1 else keys[0] > values[0]
        )
    return transaction.execute(statement).mappings().all()


def _row(what: sa.Table, row: sa.RowMapping) -> dict[str, Any]:
    values = {column.key: row[column] for column in what.columns}
    if what is table(Job):
        for name in _LATER:
            if values[name] is not None and values[name] > values["id"]:
                values[name] = None
    return values


def _copy_later(reading: Reading, target: Database) -> None:
    """Set the references that pointed to rows that were not there yet."""
    job = table(Job).c
    for name in _LATER:
        with reading() as transaction:
            rows = transaction.execute(
                sa.select(job.id, job[name].label("value")).where(job[name] > job.id)
            ).all()
        for row in rows:
            with target.transaction() as transaction:
                transaction.execute(
                    sa.update(table(Job)).where(job.id == row.id).values({name: row.value})
                )


def _key(what: sa.Table, row: sa.RowMapping) -> list[Any]:
    return [row[column] for column in what.primary_key.columns]


def _keep(transaction: Transaction, what: sa.Table, after: Sequence[Any]) -> None:
    """Store the key up to which a table is copied."""
    transaction.execute(sa.delete(_PROGRESS).where(_PROGRESS.c.name == what.name))
    value = json.dumps([_plain(part) for part in after])
    transaction.execute(sa.insert(_PROGRESS), {"name": what.name, "value": value})


def _reached(target: Database, what: sa.Table) -> list[Any] | None:
    """Return the key up to which a table is copied, None at its start."""
    with target.reading() as transaction:
        stored = transaction.execute(
            sa.select(_PROGRESS.c.value).where(_PROGRESS.c.name == what.name)
        ).scalar_one_or_none()
    if stored is None:
        return None
    return [
        _parsed(column.type, part)
        for column, part in zip(what.primary_key.columns, json.loads(stored), strict=True)
    ]


def _parsed(kind: sa.types.TypeEngine[Any], part: Any) -> Any:  # noqa: ANN401 - any value of a key
    if isinstance(kind, sa.Uuid):
        return uuid.UUID(part)
    if isinstance(kind, sa.Enum) and kind.enum_class is not None:
        return kind.enum_class(part)
    return part


def _compare(reading: Reading, target: Database, all_tables: Sequence[sa.Table]) -> int:
    """Return the number of rows. Raises :class:`core.errors.LaunchError` for tables that differ."""
    total, different = 0, []
    for each in all_tables:
        before, after = _digest(reading, each), _digest(target.reading, each)
        total += after[0]
        if before != after:
            different.append(f"{each.name} ({before[0]} and {after[0]} rows)")
    if different:
        raise errors.LaunchError(
            f"The copy differs from the source in {', '.join(different)}: the source changed meanwhile. Stop all of "
            "its processes, and copy to an empty database."
        )
    return total


def _digest(reading: Reading, what: sa.Table) -> tuple[int, int]:
    """Return the number of rows and the sum of their hashes, which does not depend on their order."""
    count = total = 0
    for row in _rows(reading, what):
        text = json.dumps([_plain(row[column]) for column in what.columns], sort_keys=True)
        total += int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        count += 1
    return count, total % _SHA256_VALUES


def _rows(reading: Reading, what: sa.Table) -> Iterator[sa.RowMapping]:
    after: list[Any] | None = None
    while True:
        with reading() as transaction:
            rows = _page(transaction, what, after)
        if not rows:
            return
        yield from rows
        after = _key(what, rows[-1])


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a column
    """Return a value in the form that it has in both databases: JSONB stores 1e20 as an integer, for example."""
    plain: Any = value
    match value:
        case enum.Enum():
            plain = value.value
        case uuid.UUID():
            plain = value.hex
        case bytes() | memoryview():
            plain = hashlib.sha256(value).hexdigest()
        case datetime():
            plain = value.astimezone(UTC).isoformat(timespec="microseconds")
        case float() if value.is_integer():
            plain = int(value)
        case Mapping():
            plain = {str(name): _plain(part) for name, part in value.items()}
        case list() | tuple():
            plain = [_plain(part) for part in value]
    return plain


def _finish(target: Database) -> None:
    """Set the sequences and the revision: from now on processes may use the target."""
    [head] = schema.heads()
    with target.transaction() as transaction:
        if target.dialect == "postgresql":
            for each in Record.metadata.sorted_tables:
                _set_sequence(transaction, each)
        transaction.execute(sa.schema.DropTable(_PROGRESS))
        schema.mark(transaction, head)


def _set_sequence(transaction: Transaction, what: sa.Table) -> None:
    column = what.autoincrement_column
    if column is None or column.autoincrement is not True:
        return
    sequence = sa.func.pg_get_serial_sequence(what.name, column.name)
    following = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
    transaction.execute(sa.select(sa.func.setval(sequence, following, sa.false())))
