"""What callers send and what they get, as pydantic models: they check, they serialise, they are the document."""
