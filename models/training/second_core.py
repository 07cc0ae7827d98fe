"""Work for a second core: one process draws the batches, another adds gradients of its own batches.

Both are forked from the trainer and die with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing
from torch import Tensor

from models.training.student import Student

_CONTEXT = torch.multiprocessing.get_context("fork")
_AHEAD = 6


class Drawer:
    """A process that keeps a few batches ready."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self._queue = _CONTEXT.Queue(_AHEAD)
        self._process = _CONTEXT.Process(target=self._work, args=(draw,), daemon=True)
        self._process.start()

    def __call__(self) -> Any:  # noqa: ANN401 - whatever ``draw`` makes
        """Return the next batch."""
        return self._queue.get()

    def _work(self, draw: Callable[[], Any]) -> None:
        torch.set_num_threads(1)
        while True:
            self._queue.put(draw())


class Helper:
    """A process that computes gradients with weights that are at most a step old.

    The trainer averages them in when they are there and never waits for them, so that a second core that
    is busy with something else costs nothing.

    Args:
        student: whose weights and gradients are shared.
        backward: takes the gradients of a fresh batch into the student's working copy, at a progress.
    """

    def __init__(self, student: Student, backward: Callable[[float], None]) -> None:
        self._masters = list(student.masters.parameters())
        self._working = list(student.working.parameters())
        sizes = [parameter.numel() for parameter in self._masters]
        self._weights, self._gradients = (
            [
                part.view_as(parameter)
                for part, parameter in zip(shared.split(sizes), self._masters, strict=True)
            ]
            for shared in (
                torch.zeros(sum(sizes), dtype=torch.bfloat16).share_memory_() for _ in range(2)
            )
        )
        self._ready = _CONTEXT.Value("i", 0)
        self._progress = _CONTEXT.Value("d", 0.0)
        self.publish(0.0)
        self._process = _CONTEXT.Process(target=self._work, args=(backward,), daemon=True)
        self._process.start()

    def publish(self, progress: float) -> None:
        """Let the helper see the trainer's newest weights."""
        with torch.no_grad():
            torch._foreach_copy_(self._weights, self._masters)
        self._progress.value = progress

    def gradients(self) -> list[Tensor] | None:
        """Return the helper's gradients, None while they are not there. :meth:`release` gives them back."""
        return self._gradients if self._ready.value else None

    def release(self) -> None:
        """Let the helper write its next gradients."""
        self._ready.value = 0

    def _work(self, backward: Callable[[float], None]) -> None:
        torch.set_num_threads(1)
        while True:
            with torch.no_grad():
                torch._foreach_copy_(self._working, self._weights)
            backward(self._progress.value)
            while self._ready.value:
                time.sleep(0.004)
            for shared, parameter in zip(self._gradients, self._working, strict=True):
                shared.copy_(parameter.grad)
                parameter.grad = None
            self._ready.value = 1
