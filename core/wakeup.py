"""What a wakeup offers to the parts that send it."""

from typing import Protocol


class Wakeup(Protocol):
    """Sends wakeups to the processes that do some work, as :class:`jobs.queue.RedisWakeup` does."""

    def notify(self, times: int = 1) -> None:
        """Send ``times`` wakeups soon; return at once."""

    def waiting(self) -> int | None:
        """Return how many wakeups wait for a process, None when that is unknown."""

    def problem(self) -> str | None:
        """Return why Redis does not take what work needs, as one sentence; None: it does."""

    def close(self) -> None:
        """Close the connections to Redis."""
