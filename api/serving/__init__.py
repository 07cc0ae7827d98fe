"""The HTTP server: one thread reads all connections, and only a complete request gets a thread of the application.

It is a worker class for gunicorn, which listens, starts it, restarts it and passes signals on.
"""
