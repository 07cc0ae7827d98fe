"""The native API, ``/v1``: jobs, groups, images, models, the queue, usage, webhooks."""
