"""Open requests: waits for the end of a job, and streams of its events."""
