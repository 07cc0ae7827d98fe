"""``/v1/batches``: the requests in a file, each of which becomes a job."""
