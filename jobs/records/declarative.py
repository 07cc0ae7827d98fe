"""The base of all tables, and what their columns and indexes have in common."""

import enum
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from core.database import UTCDateTime
from jobs.lifecycle import OperationAction, OperationResult, Outcome, Priority, Role, Status
from jobs.phrases import Part

# SQLite generates numbers only for a key of the type INTEGER.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# A missing value is SQL's NULL, not JSON's null.
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def enumeration(kind: type[enum.StrEnum], name: str) -> sa.Enum:
    """Return a text column type with a CHECK over the enumeration's values."""
    return sa.Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def partial_index(name: str, *columns: str, where: str) -> sa.Index:
    """Return an index of the rows that meet the SQL condition ``where``."""
    condition = sa.text(where)
    return sa.Index(name, *columns, postgresql_where=condition, sqlite_where=condition)


class Record(orm.DeclarativeBase):
    """The base of all tables; its naming convention gives each constraint a name, which migrations need."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime(),
        dict[str, Any]: JSON,
        list[str]: JSON,
        str: sa.Text(),
        Status: enumeration(Status, "status"),
        Outcome: enumeration(Outcome, "outcome"),
        Priority: enumeration(Priority, "priority"),
        Role: enumeration(Role, "role"),
        Part: enumeration(Part, "part"),
        OperationAction: enumeration(OperationAction, "action"),
        OperationResult: enumeration(OperationResult, "result"),
    }


#: For tables with a composite key and small rows: on SQLite the key then is the table, instead of a second b-tree.
#: Tables with texts or bytes in their rows stay as they are: without a rowid SQLite reads those rows at each step of a
#: search, which makes it four times as slow at 3 KB a row, and the file larger.
KEY_IS_TABLE = {"sqlite_with_rowid": False}


def table(record: type[Record]) -> sa.Table:
    """Return the bare table of ``record``: statements that write run faster without the mapper."""
    bare = record.__table__
    assert isinstance(bare, sa.Table)  # noqa: S101 - narrows the declarative type for the checker
    return bare
