"""Claims a job, asks the engine, keeps the trace, tells the caller."""
