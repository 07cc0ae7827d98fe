"""The index of texts of revision 0100: an FTS5 table with triggers on SQLite, a generated column on PostgreSQL.

Each word of a text has its account's tag in front, so a search reads no other account's entries.
"""

from alembic import op

#: The words and marks of a text, separated by single spaces, each with the account's tag. The tag is short because
#: PostgreSQL indexes at most 1 MiB of words per text.
_TAGGED = "{tag} || replace(replace(replace({row}text, '  ', ' '), '  ', ' '), ' ', ' ' || {tag})"
_SQLITE_TAG = "'a' || substr({row}account_id, 26)"
_POSTGRES_TAG = "'a' || right(replace(CAST(account_id AS text), '-', ''), 7)"


def _tagged_on_sqlite(row: str) -> str:
    return _TAGGED.format(row=row, tag=f"({_SQLITE_TAG.format(row=row)})")


_SQLITE = (
    # The table stores no text of its own.
    "CREATE VIRTUAL TABLE search_index USING fts5(text, content='', tokenize='unicode61')",
    f"""
    CREATE TRIGGER search_texts_inserted AFTER INSERT ON search_texts BEGIN
        INSERT INTO search_index (rowid, text) VALUES (new.id, {_tagged_on_sqlite("new.")});
    END
    """,
    f"""
    CREATE TRIGGER search_texts_deleted AFTER DELETE ON search_texts BEGIN
        INSERT INTO search_index (search_index, rowid, text)
        VALUES ('delete', old.id, {_tagged_on_sqlite("old.")});
    END
    """,
    """
    CREATE TRIGGER search_texts_updated BEFORE UPDATE ON search_texts BEGIN
        SELECT RAISE(ABORT, 'texts must not be updated: delete and insert them');
    END
    """,
)
_WORDS = "to_tsvector('simple'::regconfig, {tagged})".format(
    tagged=_TAGGED.format(row="", tag=f"({_POSTGRES_TAG})")
)
_POSTGRES = (
    # Stored: to compute the words of a few thousand texts takes seconds, which no planner expects.
    f"ALTER TABLE search_texts ADD COLUMN words tsvector GENERATED ALWAYS AS ({_WORDS}) STORED",
    # Without the pending list: each search would read it from one end to the other.
    "CREATE INDEX ix_search_texts_words ON search_texts USING gin (words) WITH (fastupdate = off)",
)


def create() -> None:
    """Create the index and what keeps it up to date."""
    for statement in _POSTGRES if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def drop() -> None:
    """Drop the index; its triggers and its column go with the table."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE search_index")
