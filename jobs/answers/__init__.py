"""The answer of a trace: extraction, typed values, votes, JSON Schema, format instructions. Pure: no SQL, no clock."""
