"""One run of a job: slot, attempt, vote, generation, settle."""
