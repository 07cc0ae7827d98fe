"""Give each account words of its own in the index of texts, so that a search reads nothing of other accounts."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

#: A text whose words and marks, which single spaces separate, each follow the account's tag. That is short, because
#: PostgreSQL indexes at most 1 MiB of words of a text.
_TAGGED = "{tag} || replace(replace(replace({row}text, '  ', ' '), '  ', ' '), ' ', ' ' || {tag})"
_SQLITE_TAG = "'a' || substr({row}account_id, 26)"
_POSTGRES_TAG = "'a' || right(replace(CAST(account_id AS text), '-', ''), 7)"


def _sqlite_tagged(row: str) -> str:
    return _TAGGED.format(row=row, tag=f"({_SQLITE_TAG.format(row=row)})")


_SQLITE = (
    "DROP TRIGGER search_texts_come",
    "DROP TRIGGER search_texts_go",
    "DROP TABLE search_index",
    "CREATE VIRTUAL TABLE search_index USING fts5(text, content='', tokenize='unicode61')",
    f"INSERT INTO search_index (rowid, text) SELECT id, {_sqlite_tagged('')} FROM search_texts",
    f"""
    CREATE TRIGGER search_texts_come AFTER INSERT ON search_texts BEGIN
        INSERT INTO search_index (rowid, text) VALUES (new.id, {_sqlite_tagged("new.")});
    END
    """,
    f"""
    CREATE TRIGGER search_texts_go AFTER DELETE ON search_texts BEGIN
        INSERT INTO search_index (search_index, rowid, text)
        VALUES ('delete', old.id, {_sqlite_tagged("old.")});
    END
    """,
)
_SQLITE_BEFORE = (
    "DROP TRIGGER search_texts_come",
    "DROP TRIGGER search_texts_go",
    "DROP TABLE search_index",
    """
    CREATE VIRTUAL TABLE search_index USING fts5(
        account_id, text, content='search_texts', content_rowid='id', tokenize='unicode61'
    )
    """,
    "INSERT INTO search_index (search_index) VALUES ('rebuild')",
    """
    CREATE TRIGGER search_texts_come AFTER INSERT ON search_texts BEGIN
        INSERT INTO search_index (rowid, account_id, text) VALUES (new.id, new.account_id, new.text);
    END
    """,
    """
    CREATE TRIGGER search_texts_go AFTER DELETE ON search_texts BEGIN
        INSERT INTO search_index (search_index, rowid, account_id, text)
        VALUES ('delete', old.id, old.account_id, old.text);
    END
    """,
)
#: Of a column that is dropped, its index goes too.
_POSTGRES_COLUMN = (
    "ALTER TABLE search_texts DROP COLUMN words",
    "ALTER TABLE search_texts ADD COLUMN words tsvector GENERATED ALWAYS AS ({words}) STORED",
    "CREATE INDEX ix_search_texts_words ON search_texts USING gin (words) WITH (fastupdate = off)",
)
_POSTGRES_WORDS = "to_tsvector('simple'::regconfig, {tagged})".format(
    tagged=_TAGGED.format(row="", tag=f"({_POSTGRES_TAG})")
)
_POSTGRES_WORDS_BEFORE = (
    "array_to_tsvector(ARRAY[CAST(account_id AS text)]) || to_tsvector('simple'::regconfig, text)"
)


def upgrade() -> None:
    """Index all texts anew; on PostgreSQL the table is written anew, see docs/explanation/migrations.md."""
    _run(_SQLITE, _POSTGRES_WORDS)


def downgrade() -> None:
    """Index all texts as before."""
    _run(_SQLITE_BEFORE, _POSTGRES_WORDS_BEFORE)


def _run(sqlite: tuple[str, ...], words: str) -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in _POSTGRES_COLUMN if postgres else sqlite:
        op.execute(statement.format(words=words) if postgres else statement)
