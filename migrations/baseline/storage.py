"""The triggers of revision 0100 that record each change of the bytes that accounts store in ``storage_changes``."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from alembic import op


class Counted(NamedTuple):
    """Which bytes of a table's rows count, for which account, as which kind."""

    #: The prefix of the triggers, and part of the function's name.
    name: str
    table: str
    #: An SQL expression; ``{row}`` stands for the row.
    account: str
    kind: str
    texts: Sequence[str] = ()
    binaries: Sequence[str] = ()
    #: Columns that are numbers of bytes.
    sizes: Sequence[str] = ()
    #: Bytes that each row counts in addition: about what it takes with its index entries.
    row: int = 0

    @property
    def columns(self) -> Sequence[str]:
        """The columns whose bytes count."""
        return (*self.texts, *self.binaries, *self.sizes)


_OF_JOB = "(SELECT jobs.account_id FROM jobs WHERE jobs.id = {row}.job_id)"
_OF_QUEUE = "(SELECT webhook_queues.account_id FROM webhook_queues WHERE webhook_queues.id = {row}.queue_id)"
_OWN = "{row}.account_id"
COUNTED = (
    # In the order in which the service locks them.
    Counted(
        "jobs", "jobs", _OWN, "'jobs'", texts=("question", "answer_text", "answer_value", "votes")
    ),
    # What remains of a job whose data is deleted.
    Counted(
        "job_records", "jobs", _OWN, "'records'", texts=("options", "metadata", "webhook"), row=1024
    ),
    Counted("attempts", "attempts", _OF_JOB, "'traces'", texts=("prompt",)),
    Counted(
        "generations",
        "generations",
        _OF_JOB,
        "'traces'",
        texts=("output", "steps"),
        binaries=("event_index",),
    ),
    Counted(
        "search_texts",
        "search_texts",
        _OWN,
        "CASE {row}.part WHEN 'trace' THEN 'traces' ELSE 'jobs' END",
        texts=("text",),
    ),
    Counted("image_records", "images", _OWN, "'records'", row=512),
    Counted("image_bytes", "image_bytes", _OWN, "'images'", binaries=("data",)),
    Counted(
        "webhook_notifications",
        "webhook_notifications",
        _OWN,
        "'deliveries'",
        binaries=("payload",),
        row=512,
    ),
    Counted(
        "webhook_attempts",
        "webhook_attempts",
        _OF_QUEUE,
        "'deliveries'",
        texts=("url",),
        binaries=("response_body",),
        row=512,
    ),
)

_POSTGRES_FUNCTION = """
CREATE FUNCTION count_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before bigint := 0;
    after bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' THEN before := {before}; END IF;
    IF TG_OP <> 'DELETE' THEN after := {after}; END IF;
    IF after <> before THEN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO storage_changes (account_id, kind, bytes)
            VALUES ({old_account}, {old_kind}, -before);
        ELSE
            INSERT INTO storage_changes (account_id, kind, bytes)
            VALUES ({new_account}, {new_kind}, after - before);
        END IF;
    END IF;
    RETURN NULL;
END
$$
"""


def create() -> None:
    """Create the triggers, on PostgreSQL with their functions."""
    for counted in COUNTED:
        create_triggers(counted)


def drop() -> None:
    """Drop the functions; the triggers go with their tables."""
    if op.get_bind().dialect.name == "postgresql":
        for counted in COUNTED:
            op.execute(f"DROP FUNCTION count_{counted.name}()")


def create_triggers(counted: Counted) -> None:
    """Create the triggers of one count."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in (_on_postgresql if postgres else _on_sqlite)(counted):
        op.execute(sa.text(statement))


def drop_triggers(counted: Counted) -> None:
    """Drop the triggers of one count, on PostgreSQL with their function."""
    postgres = op.get_bind().dialect.name == "postgresql"
    for moment in _moments(counted):
        table = f" ON {counted.table}" if postgres else ""
        op.execute(f"DROP TRIGGER {_trigger(counted, moment)}{table}")
    if postgres:
        op.execute(f"DROP FUNCTION count_{counted.name}()")


def _moments(counted: Counted) -> list[str]:
    return ["insert", *(["update"] if counted.columns else []), "delete"]


def _trigger(counted: Counted, moment: str) -> str:
    return f"{counted.name}_counted_on_{moment}"


def _event(counted: Counted, moment: str) -> str:
    """Return the event of a trigger: an update of other columns, such as a lease, costs nothing."""
    if moment != "update":
        return moment.upper()
    return f"UPDATE OF {', '.join(counted.columns)}"


def _on_postgresql(counted: Counted) -> list[str]:
    values = {
        "name": counted.name,
        "before": _size(
            counted, "OLD", text="octet_length(CAST({} AS text))", binary="octet_length({})"
        ),
        "after": _size(
            counted, "NEW", text="octet_length(CAST({} AS text))", binary="octet_length({})"
        ),
        "old_account": counted.account.format(row="OLD"),
        "old_kind": counted.kind.format(row="OLD"),
        "new_account": counted.account.format(row="NEW"),
        "new_kind": counted.kind.format(row="NEW"),
    }
    return [_POSTGRES_FUNCTION.format(**values).replace(":=", r"\:=")] + [
        f"CREATE TRIGGER {_trigger(counted, moment)} AFTER {_event(counted, moment)} ON {counted.table} "
        f"FOR EACH ROW EXECUTE FUNCTION count_{counted.name}()"
        for moment in _moments(counted)
    ]


def _on_sqlite(counted: Counted) -> list[str]:
    before, after = (
        _size(counted, row, text="length(CAST({} AS BLOB))", binary="length({})")
        for row in ("OLD", "NEW")
    )
    sizes = {"insert": after, "update": f"{after} - ({before})", "delete": f"-({before})"}
    statements = []
    for moment in _moments(counted):
        row = "OLD" if moment == "delete" else "NEW"
        statements.append(
            f"CREATE TRIGGER {_trigger(counted, moment)} AFTER {_event(counted, moment)} ON {counted.table} "
            f"WHEN {sizes[moment]} <> 0 BEGIN "
            "INSERT INTO storage_changes (account_id, kind, bytes) VALUES "
            f"({counted.account.format(row=row)}, {counted.kind.format(row=row)}, {sizes[moment]}); END"
        )
    return statements


def _size(counted: Counted, row: str, *, text: str, binary: str) -> str:
    """Return an SQL expression of a row's bytes. JSON counts as the text that the database makes of it."""
    parts = [text.format(f"{row}.{name}") for name in counted.texts]
    parts += [binary.format(f"{row}.{name}") for name in counted.binaries]
    parts += [f"{row}.{name}" for name in counted.sizes]
    return " + ".join([str(counted.row), *(f"COALESCE({part}, 0)" for part in parts)])
