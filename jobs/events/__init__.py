"""The numbered events of a job: their index in a growing text, and the live path through Redis."""
