"""The tables of accounts: what each stores, and its keys."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import Priority, Role
from jobs.records.declarative import KEY_IS_TABLE, SERIAL, Record, enumeration


class Account(Record):
    """An account: jobs, images and keys belong to one."""

    __tablename__ = "accounts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    #: The account's own storage quota in MiB, 0 for no quota; None: the settings' quota.
    storage_mb: Mapped[int | None]
    #: When a recount last counted the account's rows; None: never.
    storage_recounted_at: Mapped[datetime | None]


class StorageTotal(Record):
    """The bytes of one kind that an account stores, without the changes that are still in :class:`StorageChange`."""

    __tablename__ = "storage_totals"
    __table_args__ = (KEY_IS_TABLE,)

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(sa.BigInteger())


class StorageChange(Record):
    """A change of the bytes that an account stores: written by triggers, folded into :class:`StorageTotal`.

    There is no foreign key: its check would lock the account's row at each change.
    """

    __tablename__ = "storage_changes"
    __table_args__ = (sa.Index(None, "account_id", "kind", "bytes"),)

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True, autoincrement=True)
    account_id: Mapped[uuid.UUID]
    kind: Mapped[str]
    bytes: Mapped[int] = mapped_column(sa.BigInteger())


class ApiKey(Record):
    """An API key: an account and a role. The key itself is not stored, only its keyed hash."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    role: Mapped[Role]
    name: Mapped[str]
    #: HMAC-SHA256 of the key with the pepper, 32 bytes.
    digest: Mapped[bytes] = mapped_column(unique=True)
    #: Which pepper: :func:`core.peppers.identify`. None: an earlier version hashed it.
    pepper_id: Mapped[str | None]
    #: The first and the last characters of the key, to recognize it.
    redacted_key: Mapped[str]
    created_at: Mapped[datetime]
    #: The actor: a key, or the user of the command line. None: an earlier version made it.
    created_by: Mapped[str | None]
    #: A use of the last minute may be missing.
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
    #: From this time on, the key is refused; None: it does not expire.
    expires_at: Mapped[datetime | None]
    #: The key's own limits; None: the settings' limits.
    requests_per_minute: Mapped[int | None]
    max_body_mb: Mapped[int | None]
    #: The highest class of its jobs; without one, that of its role.
    max_priority: Mapped[Priority | None] = mapped_column(enumeration(Priority, "max_priority"))
