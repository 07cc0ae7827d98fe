"""Voting of several samples on one answer: the waves in which they run, and how answers are counted. Pure.

Votes are numbered from 0 in the order of their requests. The class with the most votes wins; in a tie, the class with
the earliest vote wins. So the result depends only on the votes, and not on which sample finishes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: A vote needs at least this many samples, although one of two could not be outvoted.
_MIN_VOTES = 2


@dataclass(frozen=True)
class AnswerClass:
    """Equal answers.

    Attributes:
        text: the first of these answers.
        votes: their votes, in order.
    """

    text: str = field(repr=False)
    votes: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key of classes; the winner has the smallest."""
        return -len(self.votes), self.votes[0]


@dataclass(frozen=True)
class Tally:
    """The result of a vote.

    Attributes:
        requested: maximum number of samples of the job.
        begun: number of samples that were started.
        classes: the classes of answers, the winner first.
        abstained: votes whose samples ended without an answer.
        samples: the number of each vote's stream in the attempt.
        look: the number of the stream that verified the winner, or None.
    """

    requested: int
    begun: int
    classes: tuple[AnswerClass, ...]
    abstained: tuple[int, ...]
    generations: Mapping[int, int]
    look: int | None = None

    @property
    def counted(self) -> int:
        """The number of finished samples, including abstentions."""
        return sum(len(entry.votes) for entry in self.classes) + len(self.abstained)

    @property
    def confidence(self) -> float | None:
        """The winner's share of the counted samples, or None without a winner."""
        return len(self.classes[0].votes) / self.counted if self.classes else None

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values, as the job stores it."""
        return {
            "requested": self.requested,
            "begun": self.begun,
            "counted": self.counted,
            "classes": [
                {"text": entry.text, "samples": self._streams(entry.votes)}
                for entry in self.classes
            ],
            "abstained": self._streams(self.abstained),
        } | ({} if self.look is None else {"look": self.look})

    def _streams(self, votes: Iterable[int]) -> list[int]:
        return [self.generations[vote] for vote in votes]


def waves(samples: int) -> list[int]:
    """Return the number of samples in each wave: 5 are 3 + 2, 8 are 4 + 2 + 2.

    The first wave is the smallest that can decide if all of its samples agree; each further one is half of the rest.
    """
    planned: list[int] = []
    left = samples
    while left:
        planned.append(min(left, max(-(-left // 2), _MIN_VOTES)))
        left -= planned[-1]
    return planned


def classes(
    answers: Mapping[int, str | None], same: Callable[[str, str], bool]
) -> list[AnswerClass]:
    """Return the classes of ``answers``, the winner first.

    Args:
        answers: the answer of each vote; None is an abstention.
        same: whether two answers are equal. Each answer is compared with the first one of each class.
    """
    grouped: list[AnswerClass] = []
    for vote in sorted(answers):
        text = answers[vote]
        if text is None:
            continue
        for index, entry in enumerate(grouped):
            if same(entry.text, text):
                grouped[index] = AnswerClass(entry.text, (*entry.votes, vote))
                break
        else:
            grouped.append(AnswerClass(text, (vote,)))
    return sorted(grouped, key=lambda entry: entry.rank)


def decided(ranked: list[AnswerClass], *, cast: Iterable[int], requested: int) -> bool:
    """Whether the missing votes can no longer change the winner.

    Args:
        ranked: the classes so far, the leader first.
        cast: the finished votes, including abstentions.
        requested: the total number of votes.
    """
    finished = set(cast)
    missing = [vote for vote in range(requested) if vote not in finished]
    if not missing:
        return True
    if not ranked or len(finished) < _MIN_VOTES:
        return False
    leader, *rivals = ranked
    # The best case of each rival is to get all missing votes; a new class has only those.
    best = [(-len(rival.votes) - len(missing), min(rival.votes[0], missing[0])) for rival in rivals]
    return leader.rank < min([*best, (-len(missing), missing[0])])
