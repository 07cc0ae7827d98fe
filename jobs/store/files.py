"""Files: bytes that an account stores under a name, in chunks.

A file of 200 MB is written in many short transactions, so that other writers get their turns. Until the last of them
it is invisible. A removed file is invisible at once, and its chunks are deleted afterwards. A process may end at any
line: :func:`purge`, which every sweep calls, removes what uploads and removals have left.
"""

import contextlib
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Now, Transaction
from core.database_faults import DatabaseUnavailable
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, FileChunk, FileEntry
from jobs.store import erased_accounts, storage

#: The most bytes of a chunk.
CHUNK_BYTES: Final = 2**20
#: Chunks that one transaction deletes.
_DELETED: Final = 8
#: An upload that has added nothing for this time has ended.
_ABANDONED: Final = timedelta(hours=1)
_GONE: Final = "The file was removed while it was being stored."
#: The purpose of the files that batches write.
OUTPUT: Final = "batch_output"


_FILE = table(FileEntry).c
_CHUNK = table(FileChunk).c
_BATCH = table(BatchEntry).c

#: A batch that has not ended needs the file, which may have expired meanwhile.
_NEEDED = (
    sa.select(sa.literal(1))
    .select_from(table(BatchEntry))
    .where(_BATCH.input_file_id == _FILE.id, _BATCH.finished_at.is_(None))
    .exists()
)


@dataclass(frozen=True)
class NewFile:
    """What is known of a file before its bytes. ``lifetime`` None: it does not expire."""

    account_id: uuid.UUID
    purpose: str
    filename: str
    lifetime: timedelta | None = None


def visible() -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of the files that callers see."""
    return (
        _FILE.stored_at.is_not(None),
        _FILE.removed_at.is_(None),
        sa.or_(_FILE.expires_at.is_(None), _FILE.expires_at > Now()),
    )


def begin(transaction: Transaction, new: NewFile) -> uuid.UUID:
    """Insert a file without bytes, which :func:`complete` makes visible; return its id.

    Raises:
        core.errors.Unauthenticated: the account is erased.
    """
    file_id = ids.new()
    transaction.execute(
        sa.insert(table(FileEntry)).values(
            id=file_id,
            account_id=new.account_id,
            purpose=new.purpose,
            filename=new.filename,
            bytes=0,
            created_at=Now(),
            touched_at=Now(),
        )
    )
    erased_accounts.refuse(transaction, new.account_id)
    return file_id


def append(transaction: Transaction, file_id: uuid.UUID, data: bytes) -> int:
    """Add ``data`` to the end of a file that is not complete; return the place of its first byte.

    Raises:
        core.errors.NotFound: the file was removed meanwhile, for example because its account was erased.
    """
    size = transaction.execute(
        sa.update(table(FileEntry))
        .where(_FILE.id == file_id, _FILE.stored_at.is_(None), _FILE.removed_at.is_(None))
        .values(bytes=_FILE.bytes + len(data), touched_at=Now())
        .returning(_FILE.bytes)
    ).scalar_one_or_none()
    if size is None:
        raise errors.NotFound(_GONE)
    start = size - len(data)
    rows = [
        {"file_id": file_id, "start": start + at, "data": data[at : at + CHUNK_BYTES]}
        for at in range(0, len(data), CHUNK_BYTES)
    ]
    if rows:
        transaction.execute(sa.insert(table(FileChunk)), rows)
    return int(start)


@dataclass(frozen=True)
class Overwritten:
    """A part of a file that gets other bytes: ``head``, then spaces. Ends of lines stay."""

    start: int
    length: int
    head: bytes = b""

    @property
    def end(self) -> int:
        """The place of the first byte behind it."""
        return self.start + self.length

    def apply(self, data: bytearray, at: int) -> None:
        """Overwrite what ``data`` has of it, whose first byte is the one at ``at`` of the file."""
        first, last = max(self.start, at), min(self.end, at + len(data))
        head = self.head[first - self.start : last - self.start]
        rest = data[first - at + len(head) : last - at].translate(_BLANK)
        data[first - at : last - at] = head + rest


#: All bytes as spaces, but for the end of a line.
_BLANK: Final = bytes(byte if byte == ord("\n") else ord(" ") for byte in range(256))


def overwrite(transaction: Transaction, file_id: uuid.UUID, parts: Collection[Overwritten]) -> None:
    """Overwrite parts of a file in place; of a file that is deleted, there is nothing to do."""
    if not parts:
        return
    starts = transaction.execute(
        sa.select(_CHUNK.start)
        .where(
            _CHUNK.file_id == file_id,
            _CHUNK.start > min(part.start for part in parts) - CHUNK_BYTES,
            _CHUNK.start < max(part.end for part in parts),
        )
        .order_by(_CHUNK.start)
    ).scalars()
    for start in starts.all():
        within = [part for part in parts if start - part.length < part.start < start + CHUNK_BYTES]
        if not within:
            continue
        chunk = _CHUNK.file_id == file_id, _CHUNK.start == start
        before = transaction.execute(
            sa.select(_CHUNK.data).where(*chunk).with_for_update()
        ).scalar_one_or_none()
        if before is None:
            continue
        data = bytearray(before)
        for part in within:
            part.apply(data, start)
        if data != before:
            transaction.execute(sa.update(table(FileChunk)).where(*chunk).values(data=bytes(data)))


def complete(transaction: Transaction, file_id: uuid.UUID, lifetime: timedelta | None) -> None:
    """Make a file visible, which exists and expires from now on."""
    transaction.execute(
        sa.update(table(FileEntry))
        .where(_FILE.id == file_id, _FILE.removed_at.is_(None))
        .values(
            created_at=Now(),
            stored_at=Now(),
            expires_at=None if lifetime is None else Now(lifetime),
        )
    )


def store(
    database: Database, new: NewFile, pieces: Iterable[bytes], *, limit: int | None = None
) -> FileEntry:
    """Store a file and return it.

    Args:
        database: where it is stored.
        new: the file.
        pieces: its bytes.
        limit: the most bytes that the account may store, as :meth:`jobs.store.storage.Quota.check` returns it.

    Raises:
        core.errors.StorageQuotaExceeded: the account would store more than ``limit``; the file is not stored.
        core.errors.NotFound: the file was removed meanwhile, because its account was erased.
        core.errors.Unauthenticated: the account is erased.
        core.database_faults.DatabaseUnavailable: the database does not answer; the file is not stored.
    """
    with database.transaction() as transaction:
        file_id = begin(transaction, new)
    try:
        for data in _chunks(pieces):
            with database.transaction("file") as transaction:
                append(transaction, file_id, data)
                if limit is not None:
                    storage.enforce(transaction, new.account_id, limit)
        with database.transaction("file") as transaction:
            complete(transaction, file_id, new.lifetime)
            stored = transaction.session.get(FileEntry, file_id)
            if stored is None or stored.removed_at is not None:
                raise errors.NotFound(_GONE)
            return stored
    except errors.LonglookError:
        # As far as the database still answers; otherwise it is purged later.
        _discard(database, file_id)
        raise


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in chunks of one size, but for the last one."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        while len(pending) >= CHUNK_BYTES:
            yield bytes(pending[:CHUNK_BYTES])
            del pending[:CHUNK_BYTES]
    if pending:
        yield bytes(pending)


def get(
    database: Database, file_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> FileEntry | None:
    """Return a file, or None when it does not exist (in this account; None: in any account)."""
    with database.reading() as transaction:
        file = transaction.session.scalars(
            sa.select(FileEntry).where(_FILE.id == file_id, *visible())
        ).one_or_none()
        return file if file and account_id in (None, file.account_id) else None


def page(
    database: Database,
    *,
    account_id: uuid.UUID | None,
    purpose: str | None,
    limit: int,
    after: uuid.UUID | None,
    newest_first: bool,
) -> tuple[list[FileEntry], bool]:
    """Return up to ``limit`` files beyond ``after``, and whether there are more."""
    wanted = sa.select(FileEntry).where(*visible()).limit(limit + 1)
    wanted = wanted.order_by(_FILE.id.desc() if newest_first else _FILE.id)
    if account_id is not None:
        wanted = wanted.where(_FILE.account_id == account_id)
    if purpose is not None:
        wanted = wanted.where(_FILE.purpose == purpose)
    if after is not None:
        wanted = wanted.where(_FILE.id < after if newest_first else _FILE.id > after)
    with database.reading() as transaction:
        rows = list(transaction.session.scalars(wanted))
        return rows[:limit], len(rows) > limit


def read(
    database: Database, file_id: uuid.UUID, *, start: int = 0, end: int | None = None
) -> Iterator[bytes]:
    """Yield the bytes of a file from ``start`` to before ``end`` (None: its end), each chunk in a read of its own."""
    at = start
    while end is None or at < end:
        count = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - at)
        bound = {"file_id": file_id, "at": at, "count": count}
        with database.reading() as transaction:
            piece = transaction.execute(_PART, bound).scalar_one_or_none()
        if not piece:
            return
        yield bytes(piece)
        at += len(piece)


def part(transaction: Transaction, file_id: uuid.UUID, *, start: int, length: int) -> bytes:
    """Return some bytes of a file, or none of a file that is deleted."""
    pieces: list[bytes] = []
    at = start
    while at < start + length:
        bound = {"file_id": file_id, "at": at, "count": start + length - at}
        piece = transaction.execute(_PART, bound).scalar_one_or_none()
        if not piece:
            return b""
        pieces.append(bytes(piece))
        at += len(piece)
    return b"".join(pieces)


_AT = sa.bindparam("at", type_=sa.BigInteger())
#: The bytes from a place on, up to the end of their chunk: a line of a batch is much shorter than its chunk.
_PART = (
    sa.select(
        sa.func.substr(
            _CHUNK.data,
            sa.cast(_AT - _CHUNK.start + 1, sa.Integer()),
            sa.bindparam("count", type_=sa.Integer()),
            type_=sa.LargeBinary(),
        )
    )
    .where(
        _CHUNK.file_id == sa.bindparam("file_id", type_=_CHUNK.file_id.type), _CHUNK.start <= _AT
    )
    .order_by(_CHUNK.start.desc())
    .limit(1)
)


def hold(
    transaction: Transaction, file_id: uuid.UUID, *, account_id: uuid.UUID
) -> FileEntry | None:
    """Return a visible file of an account, locked against its removal until the commit; None: it does not exist."""
    return transaction.session.scalars(
        sa.select(FileEntry)
        .where(_FILE.id == file_id, _FILE.account_id == account_id, *visible())
        .with_for_update(read=True)
    ).one_or_none()


def remove(database: Database, file_id: uuid.UUID, *, account_id: uuid.UUID | None) -> bool:
    """Remove a file; return False when it does not exist (in this account; None: in any account).

    Raises:
        core.errors.Conflict: a batch that has not ended reads it.
    """
    with database.transaction() as transaction:
        known = sa.select(_FILE.id).where(_FILE.id == file_id, *visible())
        if account_id is not None:
            known = known.where(_FILE.account_id == account_id)
        if transaction.execute(known.with_for_update()).first() is None:
            return False
        needed = sa.select(sa.literal(1)).where(_FILE.id == file_id, _NEEDED)
        if transaction.execute(needed).first() is not None:
            raise errors.Conflict(
                "A batch that has not ended reads this file; cancel the batch first.",
                code="file_in_use",
            )
        _mark(transaction, [file_id])
    # It is removed; what the database does not delete now is purged later.
    with contextlib.suppress(DatabaseUnavailable):
        _delete_all(database, file_id)
    return True


def remove_all(database: Database, account_id: uuid.UUID) -> None:
    """Remove all files of an account, and those that are being stored.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; another call continues.
    """
    while True:
        with database.transaction() as transaction:
            chosen = (
                transaction.execute(
                    sa.select(_FILE.id).where(_FILE.account_id == account_id).limit(50)
                )
                .scalars()
                .all()
            )
            _mark(transaction, chosen)
        if not chosen:
            return
        for file_id in chosen:
            _delete_all(database, file_id)


def purge(database: Database, *, limit: int = 50) -> tuple[int, bool]:
    """Remove files that have expired and what interrupted uploads and removals have left, for a while.

    Returns:
        How many files are removed now, and whether there may be more to do.
    """
    expired = sa.and_(_FILE.expires_at <= Now(), ~_NEEDED)
    # A file of a batch is written as long as the batch exists, however long its processes are away.
    abandoned = sa.and_(
        _FILE.stored_at.is_(None),
        _FILE.touched_at < Now(-_ABANDONED),
        _FILE.purpose != OUTPUT,
    )
    marked = 0
    for due, column in ((expired, _FILE.expires_at), (abandoned, _FILE.touched_at)):
        wanted = (
            sa.select(_FILE.id).where(due, _FILE.removed_at.is_(None)).order_by(column).limit(limit)
        )
        with database.reading() as transaction:
            nothing = transaction.execute(wanted).first() is None
        if nothing:
            continue
        with database.transaction() as transaction:
            locked = wanted.with_for_update(skip_locked=True)
            chosen = transaction.execute(locked).scalars().all()
            _mark(transaction, chosen)
            marked += len(chosen)
    with database.reading() as transaction:
        removed = transaction.execute(_REMOVED).scalars().all()
    deleted = sum(1 for file_id in removed if not _delete_some(database, file_id))
    return deleted, len(removed) == _REMOVED_FILES or marked >= limit or deleted < len(removed)


_REMOVED_FILES: Final = 8
_REMOVED = (
    sa.select(_FILE.id)
    .where(_FILE.removed_at.is_not(None))
    .order_by(_FILE.removed_at)
    .limit(_REMOVED_FILES)
)


def _mark(transaction: Transaction, file_ids: Iterable[uuid.UUID]) -> None:
    # Its name goes with it, not later with its row.
    transaction.execute(
        sa.update(table(FileEntry))
        .where(_FILE.id.in_(list(file_ids)), _FILE.removed_at.is_(None))
        .values(removed_at=Now(), filename="")
    )


def _discard(database: Database, file_id: uuid.UUID) -> None:
    """Remove a file that could not be stored, if the database answers."""
    try:
        with database.transaction() as transaction:
            _mark(transaction, [file_id])
        _delete_all(database, file_id)
    except errors.LonglookError:
        return


def _delete_all(database: Database, file_id: uuid.UUID) -> None:
    while _delete_some(database, file_id):
        pass


def _delete_some(database: Database, file_id: uuid.UUID) -> bool:
    """Delete some chunks of a removed file, and after the last one the file; return whether there is more to do."""
    with database.transaction() as transaction:
        starts = (
            transaction.execute(
                sa.select(_CHUNK.start)
                .where(_CHUNK.file_id == file_id)
                .order_by(_CHUNK.start)
                .limit(_DELETED)
                .with_for_update()
            )
            .scalars()
            .all()
        )
        transaction.execute(
            sa.delete(table(FileChunk)).where(_CHUNK.file_id == file_id, _CHUNK.start.in_(starts))
        )
        if len(starts) == _DELETED:
            return True
        transaction.execute(
            sa.delete(table(FileEntry)).where(_FILE.id == file_id, _FILE.removed_at.is_not(None))
        )
        return False
