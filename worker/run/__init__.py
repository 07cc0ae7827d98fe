"""A run of a job: a slot claims it, an attempt or a vote runs its generations, a settlement writes the end."""
