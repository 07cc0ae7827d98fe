"""The ``longlook`` command: starts the service, talks to it, looks after its keys and its database."""
