"""The tables behind the search."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.phrases import Part
from jobs.records.declarative import SERIAL, Record


class SearchText(Record):
    """A part of a job, normalized for search: see :mod:`jobs.store.search`.

    Only the migrations know the index of texts, because the two databases have nothing in common there: on SQLite it is
    the table ``search_index``, which triggers update, on PostgreSQL the column ``words`` and its index.
    """

    __tablename__ = "search_texts"
    __table_args__ = (sa.Index(None, "job_id", "part"),)

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True, autoincrement=True)
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    part: Mapped[Part]
    #: A long text is split into several rows that overlap.
    text: Mapped[str]


class ReindexProgress(Record):
    """How far ``longlook db reindex`` is: one row while it is due, runs, or was interrupted."""

    __tablename__ = "reindex_progress"

    #: Always 1.
    id: Mapped[int] = mapped_column(primary_key=True)
    #: The rules by which it normalizes texts; a reindex by other rules starts from the beginning.
    pipeline: Mapped[str]
    #: The last job whose texts are rebuilt, and how many are.
    reached: Mapped[uuid.UUID]
    jobs: Mapped[int] = mapped_column(sa.BigInteger())
    at: Mapped[datetime]
    #: Whether SQLite's table of metadata pairs lacks those of older jobs until it ends.
    lacks_pairs: Mapped[bool] = mapped_column(server_default=sa.false())
