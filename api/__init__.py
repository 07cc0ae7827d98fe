"""The HTTP API: JSON over the rows of :mod:`jobs`. Only this package uses Flask."""
