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

_NAME: Final = sa.select(table(Account).c.name).where(
    table(Account).c.id == sa.bindparam("account_id")
)


def name(account_id: uuid.UUID) -> str:
    """Return the name of an erased account."""
    return f"erased-{ids.show('acct', account_id)}"


def refuse(transaction: Transaction, account_id: uuid.UUID) -> None:
    """Check that an account is not erased, after a row that refers to it was inserted.

    The reference keeps the name as it is until the commit, so an erasure waits and then sees the row.

    Raises:
        core.errors.Unauthenticated: it is erased; the transaction must not commit.
    """
    current = transaction.execute(_NAME, {"account_id": account_id}).scalar_one_or_none()
    if current == name(account_id):
        raise errors.Unauthenticated("This API key was revoked.")
