"""The small model that ships with the service, and what it was trained by."""
