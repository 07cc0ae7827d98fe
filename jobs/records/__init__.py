"""The tables, as typed classes. Rows are plain records; :mod:`jobs.lifecycle` has the rules of a job.

Times are UTC (:class:`core.database.UTCDateTime`), enumerations are stored by value, ids are UUIDv7.

Each module has the tables of one subject. The package imports all of them, because a foreign key finds its table by
name.
"""

from jobs.records import (
    accounts,
    attempts,
    files,
    fleet,
    images,
    jobs,
    operations,
    queue,
    search,
    timeline,
)

__all__ = [
    "accounts",
    "attempts",
    "files",
    "fleet",
    "images",
    "jobs",
    "operations",
    "queue",
    "search",
    "timeline",
]
