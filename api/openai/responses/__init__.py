"""Responses: a job as OpenAI's Response object, with its input items and its typed stream."""
