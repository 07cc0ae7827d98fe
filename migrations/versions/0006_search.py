"""Make room for groups of jobs, for the texts by which jobs are found, and an index of what went wrong."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

#: Partial indexes of ``jobs``: their columns, and what has to be there.
_INDEXES = {
    "ix_jobs_group": (["group_id", "id"], "group_id IS NOT NULL"),
    "ix_jobs_error": (["error_code", "id"], "error_code IS NOT NULL"),
}

#: FTS5's table, which keeps no text of its own, and what keeps it in step with the rows.
_SQLITE = (
    """
    CREATE VIRTUAL TABLE search_index USING fts5(
        account_id, text, content='search_texts', content_rowid='id', tokenize='unicode61'
    )
    """,
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
    """
    CREATE TRIGGER search_texts_stay BEFORE UPDATE ON search_texts BEGIN
        SELECT RAISE(ABORT, 'texts are not changed, they are taken away and written anew');
    END
    """,
)
#: A column of its own: worked out anew, the words of a few thousand texts take seconds, which no planner expects.
_POSTGRES = (
    """
    ALTER TABLE search_texts ADD COLUMN words tsvector GENERATED ALWAYS AS (
        array_to_tsvector(ARRAY[CAST(account_id AS text)]) || to_tsvector('simple'::regconfig, text)
    ) STORED
    """,
    # Without a list of what is to be indexed later: each search would read it from one end to the other.
    "CREATE INDEX ix_search_texts_words ON search_texts USING gin (words) WITH (fastupdate = off)",
)


def upgrade() -> None:
    """Add the column and the table, which are empty at first, and the indexes.

    On a large PostgreSQL column and indexes of ``jobs`` are there already. Jobs of before are found when
    ``longlook db reindex`` has been through them.
    """
    postgres = op.get_bind().dialect.name == "postgresql"
    op.add_column("jobs", sa.Column("group_id", sa.Uuid(), nullable=True), if_not_exists=postgres)
    for name, (columns, condition) in _INDEXES.items():
        op.create_index(
            name,
            "jobs",
            columns,
            postgresql_where=sa.text(condition),
            sqlite_where=sa.text(condition),
            if_not_exists=True,
        )
    op.create_table(
        "search_texts",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "part",
            sa.Enum(
                "question",
                "answer",
                "trace",
                name="part",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_search_texts_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_search_texts_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_texts")),
    )
    op.create_index("ix_search_texts_job_id_part", "search_texts", ["job_id", "part"])
    for statement in _POSTGRES if postgres else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    """Take them back; jobs of a group go on as jobs by themselves."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE search_index")
    op.drop_table("search_texts")
    for name in _INDEXES:
        op.drop_index(name, "jobs")
    op.drop_column("jobs", "group_id")
