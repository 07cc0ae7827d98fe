"""What all streams do when their reader leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Leaving:
    """A stream that is closed when its context is left, however that is done."""

    def close(self) -> None:
        """End the reading from any thread. Idempotent."""
        raise NotImplementedError

    def left(self) -> None:
        """Let go of what only the reader may let go of."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self.left()
