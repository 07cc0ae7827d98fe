"""Reads the input file of a batch in slices: finds all faults of all lines, and notes where the lines are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from api.auth import Caller
from api.openai.batches import lines
from api.openai.batches.endpoints import BatchEndpoint
from core.database import Database
from jobs.store import batch_lines, batches, files
from jobs.store.batch_lines import LinesRead, NewLine
from jobs.store.batches import BatchClaim

#: The most lines and the most seconds of a slice.
_LINES: Final = 200
_SECONDS: Final = 0.25
#: Lines of a retry that are taken over at once.
_TAKEN_OVER: Final = 500


class BatchReader:
    """Reads input files.

    Args:
        database: stores files and batches.
        max_line_bytes: the longest line.
        timer: a monotonic clock, in seconds.
        between: called after each line, to free what it took.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_line_bytes: int,
        timer: Callable[[], float] = time.monotonic,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._max_bytes = max_line_bytes
        self._timer = timer
        self._between = between

    def slice(self, held: BatchClaim, *, endpoint: BatchEndpoint, caller: Caller) -> bool:
        """Read some lines of a batch; return whether there may be more.

        Raises:
            jobs.store.batches.BatchLost: the batch is not this owner's any more.
        """
        if held.batch.retry_of is not None:
            return batch_lines.take_over(self._database, held, limit=_TAKEN_OVER)
        batch = held.batch
        new: list[NewLine] = []
        faults: list[dict[str, Any]] = []
        seen: set[str] = set()
        number, total, at, more = batch.last_line, 0, batch.validated, False
        model: str | None = None
        until = self._timer() + _SECONDS
        pieces = files.read(self._database, batch.input_file_id, start=batch.validated)
        for line in lines.split(pieces, start=batch.validated, max_bytes=self._max_bytes):
            number, at = number + 1, line.end
            if not line.is_empty:
                total += 1
                parsed = lines.parse(
                    line,
                    number,
                    endpoint=endpoint,
                    caller=caller,
                    max_bytes=self._max_bytes,
                    read_files=False,
                )
                if parsed.submission is not None:
                    parsed.submission.close()
                self._between()
                faults += parsed.faults
                model = model or parsed.model
                custom_id = parsed.custom_id
                if custom_id is not None and custom_id in seen:
                    faults.append(lines.repeated(number, custom_id))
                elif custom_id is not None:
                    seen.add(custom_id)
                    new.append(NewLine(number, custom_id, line.start, line.length))
            if self._too_long(batch.total + total, number):
                break
            if total >= _LINES or self._timer() >= until:
                more = True
                break
        known = batch_lines.known_custom_ids(self._database, batch.id, seen)
        faults += [
            lines.repeated(line.number, line.custom_id) for line in new if line.custom_id in known
        ]
        faults += self._faults_of_file(batch.total + total, number, more=more)
        room = max(0, batches.MAX_LINES - batch.total)
        batch_lines.add(
            self._database,
            held,
            LinesRead(
                validated=at,
                last_line=number,
                total=total,
                lines=[line for line in new if line.custom_id not in known][:room],
                faults=sorted(faults, key=lambda fault: fault["line"] or 0),
                fault_count=len(faults),
                model=model,
            ),
        )
        return more

    @staticmethod
    def _too_long(total: int, number: int) -> bool:
        """Whether the file has too many lines: what is behind them is not read. Empty ones take time, too."""
        return total > batches.MAX_LINES or number > 2 * batches.MAX_LINES

    @classmethod
    def _faults_of_file(cls, total: int, number: int, *, more: bool) -> list[dict[str, Any]]:
        if cls._too_long(total, number):
            sentence = f"The input file must have at most {batches.MAX_LINES:,} lines, and as many empty ones."
            return [lines.of_file("too_many_lines", sentence)]
        if not total and not more:
            return [lines.of_file("empty_file", "The input file has no lines.")]
        return []
