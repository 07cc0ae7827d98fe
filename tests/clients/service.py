"""The running service with a real worker, for the official clients: one for each module and database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import openai

from tests.e2e.stack import Stack


@dataclass
class Service:
    """The service, its key, and the clients of it.

    Attributes:
        stack: its processes.
        dialect: of its database, ``sqlite`` or ``postgresql``.
        clients: the synchronous clients so far.
    """

    stack: Stack
    dialect: str
    clients: list[openai.OpenAI] = field(default_factory=list)

    def close(self) -> None:
        """Close the connections of all synchronous clients."""
        for client in self.clients:
            client.close()

    @property
    def base_url(self) -> str:
        """What a user gives the client as ``base_url``."""
        return f"{self.stack.url}/v1"

    @property
    def key(self) -> str:
        """The key of the account ``default``."""
        return self.stack.key

    @property
    def model(self) -> str:
        """The name of the served model."""
        return self.client().models.list().data[0].id

    def client(self, **options: Any) -> openai.OpenAI:  # noqa: ANN401 - the client's own
        """Return the synchronous client; it does not retry unless ``options`` say so."""
        given: dict[str, Any] = {
            "base_url": self.base_url,
            "api_key": self.key,
            "max_retries": 0,
            "timeout": 60,
        }
        self.clients.append(openai.OpenAI(**given | options))
        return self.clients[-1]

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:  # noqa: ANN401 - the client's own
        """Return the asynchronous client, for use within one event loop."""
        given: dict[str, Any] = {
            "base_url": self.base_url,
            "api_key": self.key,
            "max_retries": 0,
            "timeout": 60,
        }
        return openai.AsyncOpenAI(**given | options)

    def stranger(self) -> openai.OpenAI:
        """Return the client of another account."""
        return self.client(api_key=self.stack.other_key)

    def restart(self) -> None:
        """Kill API and workers, and start them again on the same address."""
        self.stack.restart_api()
        self.stack.stop_workers()
        self.stack.start_worker()
