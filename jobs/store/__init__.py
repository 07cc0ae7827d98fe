"""Every verb that reads or writes the database, one module a duty. SQLAlchemy is spoken here and nowhere above.

A change of a job's state is one conditional UPDATE through :func:`jobs.store.timeline.change`;
losing the race is an answer, not an error.
"""
