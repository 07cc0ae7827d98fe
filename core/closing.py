"""A base class for what is closed at the end of a ``with`` block."""

from typing import Self


class Closing:
    """A context manager that closes itself when its block ends, with or without an exception."""

    def close(self) -> None:
        """Release what it holds. Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
