"""What the store's tests begin with."""

from __future__ import annotations

import uuid

import pytest

from core.database import Database
from tests import factories


@pytest.fixture
def account_id(database: Database) -> uuid.UUID:
    """Return an account's id."""
    return factories.make_account(database)
