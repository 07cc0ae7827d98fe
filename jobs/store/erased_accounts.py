"""Erased accounts: nothing is stored for them any more.

A request may have been accepted before its key was revoked, and store what it has after the erasure. The name of the
account tells: an erasure replaces it, and then removes what has come meanwhile.
"""

import uuid
from typing import Final

import sqlalchemy as sa

from core import errors, ids
from core.database import Transaction
from jobs.records.accounts import Account
from jobs.records.declarative import table

#: The start of the names of erased accounts, which no other account may have.
_PREFIX: Final = "erased-"
_NAME: Final = sa.select(table(Account).c.name).where(
    table(Account).c.id == sa.bindparam("account_id")
)


def name(account_id: uuid.UUID) -> str:
    """Return the name of an erased account."""
    return f"{_PREFIX}{ids.show('acct', account_id)}"


def is_name(text: str) -> bool:
    """Return whether only an erased account may have this name."""
    return ids.parse("acct", text.removeprefix(_PREFIX)) is not None and text.startswith(_PREFIX)


def is_erased(transaction: Transaction, account_id: uuid.UUID) -> bool:
    """Return whether an account is erased, after a row that refers to it was inserted: see :func:`refuse`."""
    current = transaction.execute(_NAME, {"account_id": account_id}).scalar_one_or_none()
    return bool(current == name(account_id))


def refuse(transaction: Transaction, account_id: uuid.UUID) -> None:
    """Check that an account is not erased, after a row that refers to it was inserted.

    The reference keeps the name as it is until the commit, so an erasure waits and then sees the row.

    Raises:
        core.errors.Unauthenticated: it is erased; the transaction must not commit.
    """
    if is_erased(transaction, account_id):
        raise errors.Unauthenticated("This API key was revoked.")
