"""The revisions of the schema: which one a database is at, upgrades, and differences from the models."""

import contextlib
import io
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command, util
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from core import errors
from core.database import Database, Transaction
from core.settings import Settings

#: The first revision of a released version. Lower numbers are of development versions, which nothing can upgrade.
BASELINE: Final = "0100"
#: The revision of the target of a copy that has not ended: below the first one, so that no process starts.
COPYING: Final = "0000"


def heads() -> tuple[str, ...]:
    """Return the newest revisions of this version; there should be exactly one."""
    return tuple(ScriptDirectory.from_config(_config("")).get_heads())


def fits(revision: str | None) -> bool:
    """Return whether this version works on a database at ``revision``: its own newest one, or one of a later version.

    During an upgrade the processes of the previous version continue at the new revision, which only adds to theirs. An
    unknown revision therefore belongs to a later version, unless its number is below :data:`BASELINE`.
    """
    if revision is None or is_unreleased(revision):
        return False
    script = ScriptDirectory.from_config(_config(""))
    own = {known.revision for known in script.walk_revisions()}
    return revision in script.get_heads() or revision not in own


def is_unreleased(revision: str | None) -> bool:
    """Return whether a development version before the first release made ``revision``."""
    return revision is not None and revision.isdecimal() and revision < BASELINE


def current(database: Database) -> str | None:
    """Return the revision of ``database``, None when it has no schema.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    with database.reading() as transaction:
        return MigrationContext.configure(transaction.session.connection()).get_current_revision()


@dataclass(frozen=True)
class Upgraded:
    """The revisions before and after an upgrade; ``before`` None: there was no schema."""

    before: str | None
    after: str

    @property
    def is_later(self) -> bool:
        """Whether the database was left as it is, because a later version has upgraded it."""
        return self.after not in heads()


def upgrade(url: str) -> Upgraded:
    """Bring the database at ``url`` to the newest revision.

    A database that a later version has upgraded stays as it is: its schema only adds to this version's.

    Raises:
        core.errors.LaunchError: the upgrade failed; the message says why. A database of a development version and an
            unfinished copy are refused by their revisions.
    """
    with _translate_faults(url):
        before = _refuse(url)
        if before is not None and fits(before) and before not in heads():
            return Upgraded(before, before)
        command.upgrade(_config(url), "head")
        return Upgraded(before, ", ".join(heads()))


def downgrade(url: str, revision: str) -> Upgraded:
    """Take the database at ``url`` back to ``revision``; what later revisions added is lost.

    Raises:
        core.errors.LaunchError: the revision is not an earlier one of this version, or the downgrade failed.
    """
    with _translate_faults(url):
        before = _refuse(url)
        known = [
            entry.revision for entry in ScriptDirectory.from_config(_config("")).walk_revisions()
        ]
        if before is None or before not in known:
            raise errors.LaunchError(
                f"The database is at revision {before or 'none'}, which this version does not know. Only the version "
                "that made the upgrade can take it back."
            )
        earlier = known[known.index(before) + 1 :]
        if revision not in earlier:
            raise errors.LaunchError(
                f"{revision} is not an earlier revision than {before}; use one of: {', '.join(earlier) or 'none'}."
            )
        command.downgrade(_config(url), revision)
        return Upgraded(before, revision)


def mark(transaction: Transaction, revision: str) -> None:
    """Set the revision of a database without a migration."""
    transaction.execute(
        sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
    )


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Yield the database that ``settings`` names. Raises :class:`core.errors.LaunchError`: it is not at this schema."""
    with contextlib.closing(Database(settings.database)) as database:
        revision = current(database)
        if not fits(revision):
            raise errors.LaunchError(
                f"The database is at revision {revision or 'none'}; this version needs {', '.join(heads())}: "
                "run `longlook db upgrade` first."
            )
        yield database


def difference(url: str) -> str:
    """Return how the tables of the database at ``url`` differ from the models; empty when they do not.

    Raises:
        core.errors.LaunchError: they cannot be compared, for example because the revision is not the newest one.
    """
    with _translate_faults(url):
        try:
            command.check(_config(url))
        except util.AutogenerateDiffsDetected as differences:
            return str(differences)
    return ""


def fresh_difference() -> str:
    """Return the :func:`difference` of a new SQLite database at the newest revision."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'check.db'}"
        upgrade(url)
        return difference(url)


def fresh_postgres_difference(server: str) -> str:
    """Return the :func:`difference` of a new database on a PostgreSQL server, and drop that database.

    Args:
        server: URL of any database on the server, of a role that may create databases.
    """
    name = f"longlook_check_{uuid.uuid4().hex}"
    database = Database(server)
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    try:
        with _translate_faults(server):
            with engine.connect() as connection:
                connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
            try:
                url = database.url.set(database=name).render_as_string(hide_password=False)
                upgrade(url)
                return difference(url)
            finally:
                with engine.connect() as connection:
                    connection.execute(sa.text(f'DROP DATABASE "{name}"'))
    finally:
        database.close()


def _config(url: str) -> Config:
    """Return Alembic's configuration; it depends on neither the working directory nor where this package is."""
    config = Config(stdout=io.StringIO())
    # Alembic's configuration parser reads "%" as the start of a reference.
    here = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", here)
    config.attributes["database_url"] = url
    return config


def _refuse(url: str) -> str | None:
    """Return the database's revision, None without a schema.

    Raises:
        core.errors.LaunchError: no upgrade leads from its revision to this version.
    """
    with contextlib.closing(Database(url)) as database:
        revision = current(database)
    if revision is None:
        return None
    where = database.url.render_as_string(hide_password=True)
    if revision == COPYING:
        raise errors.LaunchError(
            f"The database {where} is an unfinished copy: repeat `longlook db copy`, or use another database."
        )
    if is_unreleased(revision):
        raise errors.LaunchError(
            f"The database {where} is at revision {revision}, which a version before the first release created. It "
            "cannot be upgraded. Export what you need with that version (`longlook jobs ls --json`), then start with "
            "a new database: move the SQLite file away, or set LONGLOOK_DATABASE_URL to an empty database."
        )
    return revision


@contextlib.contextmanager
def _translate_faults(url: str) -> Iterator[None]:
    """Turn an error that stops a migration into one sentence, without the URL's password."""
    try:
        yield
    except (util.CommandError, sa.exc.SQLAlchemyError, errors.Unavailable) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()
        where = sa.make_url(url).render_as_string(hide_password=True)
        raise errors.LaunchError(
            f"The database {where} cannot be used: {cause[0] if cause else type(error).__name__}"
        ) from error
