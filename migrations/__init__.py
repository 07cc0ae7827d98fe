"""The revisions of the database schema, run by Alembic on SQLite and PostgreSQL."""
