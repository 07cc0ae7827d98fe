"""Webhooks: endpoints, notifications, delivery attempts, and the process that sends them."""
