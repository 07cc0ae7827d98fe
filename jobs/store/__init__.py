"""The functions that read and write the database, one module per duty. No module above this package uses SQLAlchemy.

Each change of a job's state is one conditional UPDATE, by :func:`jobs.store.timeline.change`. A lost race is a result,
not an error.
"""
