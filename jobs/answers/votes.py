"""The vote of several samples on one answer: the waves in which samples start, and the count of the answers. Pure.

Votes are numbered from 0 in the order in which their samples start. The class with the most votes wins. If several
classes have the same number of votes, the one with the earliest vote wins. The outcome therefore depends only on the
votes, not on the order in which the samples finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: A single sample does not decide, even though of two samples the first one could not be outvoted.
_MIN_VOTES = 2


@dataclass(frozen=True)
class AnswerClass:
    """Equivalent answers.

    Attributes:
        text: the first of the answers.
        votes: the numbers of the votes for this class, in ascending order.
    """

    text: str = field(repr=False)
    votes: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, int]:
        """The key that sorts classes, the winner first."""
        return -len(self.votes), self.votes[0]


@dataclass(frozen=True)
class Tally:
    """The result of a vote.

    Attributes:
        requested: the maximum number of samples, from the job's option.
        begun: the number of samples that were started.
        classes: the answers, the winner first.
        abstained: votes whose samples ended without an answer.
        samples: vote to the number of the generation, within the attempt, that cast it.
        look: the number of the generation that verified the winner; None if there was no verification.
    """

    requested: int
    begun: int
    classes: tuple[AnswerClass, ...]
    abstained: tuple[int, ...]
    samples: Mapping[int, int]
    look: int | None = None

    @property
    def counted(self) -> int:
        """The number of samples that ended and count, including abstentions."""
        return sum(len(answer.votes) for answer in self.classes) + len(self.abstained)

    @property
    def confidence(self) -> float | None:
        """The winner's share of the counted samples; None without a winner."""
        return len(self.classes[0].votes) / self.counted if self.classes else None

    def plain(self) -> dict[str, Any]:
        """Return the tally as the JSON that is stored with the job."""
        return {
            "requested": self.requested,
            "begun": self.begun,
            "counted": self.counted,
            "classes": [
                {"text": answer.text, "samples": self._generations(answer.votes)}
                for answer in self.classes
            ],
            "abstained": self._generations(self.abstained),
        } | ({} if self.look is None else {"look": self.look})

    def _generations(self, votes: Iterable[int]) -> list[int]:
        return [self.samples[vote] for vote in votes]


def waves(samples: int) -> list[int]:
    """Return the number of samples in each wave: 5 samples run as 3 + 2, 8 samples as 4 + 2 + 2.

    The first wave is the smallest one that can decide the vote if all of its samples agree. Each further wave is half
    of the remaining samples.
    """
    sizes: list[int] = []
    remaining = samples
    while remaining:
        sizes.append(min(remaining, max(-(-remaining // 2), _MIN_VOTES)))
        remaining -= sizes[-1]
    return sizes


def classes(
    answers: Mapping[int, str | None], same: Callable[[str, str], bool]
) -> list[AnswerClass]:
    """Return the classes of ``answers``, the winner first.

    Args:
        answers: vote to answer; None is an abstention.
        same: whether two answers are equivalent. Each answer is compared with the first answer of each class.
    """
    ranked: list[AnswerClass] = []
    for vote in sorted(answers):
        text = answers[vote]
        if text is None:
            continue
        for index, answer in enumerate(ranked):
            if same(answer.text, text):
                ranked[index] = AnswerClass(answer.text, (*answer.votes, vote))
                break
        else:
            ranked.append(AnswerClass(text, (vote,)))
    return sorted(ranked, key=lambda answer: answer.rank)


def decided(ranked: list[AnswerClass], *, cast: Iterable[int], requested: int) -> bool:
    """Whether the missing votes can no longer change the winner.

    Args:
        ranked: the classes so far, the leader first.
        cast: the votes so far, including abstentions.
        requested: the total number of votes.
    """
    present = set(cast)
    missing = [vote for vote in range(requested) if vote not in present]
    if not missing:
        return True
    if not ranked or len(present) < _MIN_VOTES:
        return False
    leader, *rivals = ranked
    # The best possible rank of each rival: it gets all missing votes. A new class gets nothing but those.
    best = [(-len(rival.votes) - len(missing), min(rival.votes[0], missing[0])) for rival in rivals]
    return leader.rank < min([*best, (-len(missing), missing[0])])
