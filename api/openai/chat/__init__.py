"""``/v1/chat/completions``: each chat completion is a job in the foreground."""
