"""Threads that run complete requests. Groups take turns, and none can occupy all threads."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from api.serving.shares import Group, Share
from core.shares import has_share


class Task(Protocol):
    """A task that waits for a thread."""

    group: Group
    #: The time when its wait ends.
    due: float


AnyTask = TypeVar("AnyTask", bound=Task)
#: From this number of running tasks on, they compete for the interpreter.
_CROWD: Final = 2


class Threads(Generic[AnyTask]):
    """Runs tasks in threads, which it starts on demand.

    Args:
        places: maximum number of running tasks, without those that have stepped aside.
        waiting: maximum number of waiting tasks; a group has at most three quarters of them.
        run: runs a task; it must not raise.
        name: the prefix of the threads' names.
        crowded: called with True when a second task begins to run, and with False when only one is left. It must
            return at once.
    """

    def __init__(
        self,
        places: int,
        *,
        waiting: int,
        run: Callable[[AnyTask], None],
        name: str,
        crowded: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._run_task = run
        self._name = name
        self._changed = threading.Condition()
        self._places = self._free = places
        self._crowded = crowded
        self._running: collections.Counter[Group] = collections.Counter()
        self._waiting: collections.OrderedDict[Group, collections.deque[AnyTask]] = (
            collections.OrderedDict()
        )
        self._room = Share(waiting)
        self._idle = 0
        self._started = 0
        #: Threads that were started or woken and have not taken a task yet.
        self._coming = 0
        #: Running tasks, and those of them that have given up their place.
        self._live: set[int] = set()
        self._aside: set[int] = set()

    @property
    def waiting(self) -> int:
        """The number of waiting tasks."""
        return self._room.held

    @property
    def running(self) -> int:
        """The number of tasks that have begun, with those that have stepped aside."""
        with self._changed:
            return len(self._live)

    def submit(self, task: AnyTask) -> bool:
        """Queue a task for its group's turn; return False if too many tasks wait, of its group or of all."""
        with self._changed:
            if not self._room.take(task.group):
                return False
            self._waiting.setdefault(task.group, collections.deque()).append(task)
            self._wake()
        return True

    def step_aside(self, task: AnyTask) -> bool:
        """Give up the place of a running task, which keeps its thread; return whether it had a place."""
        with self._changed:
            if id(task) in self._aside or id(task) not in self._live:
                return False
            self._aside.add(id(task))
            self._leave(task.group)
            self._wake()
            return True

    def step_back(self, task: AnyTask) -> None:
        """Take a place for a task again, immediately: the number of places may be exceeded for a moment.

        A task that has ended meanwhile takes none: another thread can do a part of a request, and outlive it.
        """
        with self._changed:
            if id(task) in self._aside:
                self._aside.remove(id(task))
                self._enter(task.group)

    def overdue(self, now: float) -> list[AnyTask]:
        """Remove and return the tasks whose wait has ended."""
        with self._changed:
            late = [task for queue in self._waiting.values() for task in queue if task.due <= now]
            for task in late:
                self._waiting[task.group].remove(task)
                self._taken(task)
        return late

    def _work(self) -> None:
        # The thread that starts or wakes another one has counted it in `_coming`.
        coming = 1
        while True:
            with self._changed:
                self._coming -= coming
                while (task := self._next()) is None:
                    self._idle += 1
                    self._changed.wait()
                    self._coming -= 1
                coming = 0
                self._wake()
            self._run_task(task)
            with self._changed:
                self._live.discard(id(task))
                if id(task) in self._aside:
                    self._aside.discard(id(task))
                else:
                    self._leave(task.group)
            # Free the task: the next one may take a long time to arrive.
            del task

    def _next(self) -> AnyTask | None:
        """Take the next task whose group has a free place."""
        group = self._next_group()
        if group is None:
            return None
        task = self._waiting[group].popleft()
        self._waiting.move_to_end(group)
        self._taken(task)
        self._enter(group)
        self._live.add(id(task))
        return task

    def _next_group(self) -> Group | None:
        for group in self._waiting:
            if has_share(self._running[group], free=self._free):
                return group
        return None

    def _taken(self, task: AnyTask) -> None:
        self._room.give_back(task.group)
        if not self._waiting[task.group]:
            del self._waiting[task.group]

    def _enter(self, group: Group) -> None:
        self._free -= 1
        self._running[group] += 1
        if self._places - self._free == _CROWD:
            self._crowded(True)

    def _leave(self, group: Group) -> None:
        self._free += 1
        if self._places - self._free == _CROWD - 1:
            self._crowded(False)
        self._running[group] -= 1
        if not self._running[group]:
            del self._running[group]

    def _wake(self) -> None:
        """Wake or start a thread for the next task, if one can run."""
        # Threads in `_coming` take the next tasks, and wake others for the rest.
        if self._coming or not self._waiting or self._next_group() is None:
            return
        self._coming += 1
        if self._idle:
            self._idle -= 1
            self._changed.notify()
            return
        thread = threading.Thread(
            target=self._work, name=f"{self._name}-{self._started + 1}", daemon=True
        )
        # If no thread can be started, a running one takes the task later, or it becomes overdue.
        try:
            thread.start()
            self._started += 1
        except RuntimeError:
            self._coming -= 1
