"""The worker: claims jobs, runs their generations on engines, guards them, and settles the results."""
