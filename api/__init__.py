"""The door: the JSON API over the rows of :mod:`jobs`. Flask is spoken here and nowhere else."""
