"""Pydantic models of requests and responses: they validate, serialize, and make the OpenAPI document."""
