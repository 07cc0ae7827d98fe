"""The HTTP server: one thread reads all connections, and only complete requests get a thread of the application.

It is a worker class for gunicorn, which listens, starts and restarts it, and forwards signals.
"""
