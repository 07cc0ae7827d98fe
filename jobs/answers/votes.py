"""The vote of several samples on one answer: in which waves they are asked, how answers are counted. Pure.

Votes are numbered from 0 in the order in which they are asked for. The class with the most votes wins; of classes
with as many, the one that has the earliest vote. So the outcome hangs on the votes alone, not on who was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: One voice is no vote, though of two it could not be outvoted.
_LEAST = 2


@dataclass(frozen=True)
class AnswerClass:
    """Answers that say the same.

    Attributes:
        text: the first of them.
        votes: who gave them, in order.
    """

    text: str = field(repr=False)
    votes: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, int]:
        """What classes are sorted by, the winner first."""
        return -len(self.votes), self.votes[0]


@dataclass(frozen=True)
class Tally:
    """How a vote came out.

    Attributes:
        requested: samples that the job asks for, at most.
        begun: samples that an engine was asked for.
        classes: the answers, the winner first.
        abstained: votes whose samples ended without an answer.
        generations: the generation of the attempt in which each vote was cast.
        look: the stream in which the winner was looked at once more, None: it was not.
    """

    requested: int
    begun: int
    classes: tuple[AnswerClass, ...]
    abstained: tuple[int, ...]
    generations: Mapping[int, int]
    look: int | None = None

    @property
    def counted(self) -> int:
        """How many samples came to their end and count, abstentions among them."""
        return sum(len(one.votes) for one in self.classes) + len(self.abstained)

    @property
    def confidence(self) -> float | None:
        """The winner's share of all that count, None without one."""
        return len(self.classes[0].votes) / self.counted if self.classes else None

    def plain(self) -> dict[str, Any]:
        """Return it as it is kept with the job."""
        return {
            "requested": self.requested,
            "begun": self.begun,
            "counted": self.counted,
            "classes": [
                {"text": one.text, "generations": self._streams(one.votes)} for one in self.classes
            ],
            "abstained": self._streams(self.abstained),
        } | ({} if self.look is None else {"look": self.look})

    def _streams(self, votes: Iterable[int]) -> list[int]:
        return [self.generations[vote] for vote in votes]


def waves(samples: int) -> list[int]:
    """Return how many samples are asked for at once, wave by wave: 5 are 3 + 2, 8 are 4 + 2 + 2.

    The first wave is the smallest that can decide, if all of it agree; each further one is half of what is left.
    """
    planned: list[int] = []
    left = samples
    while left:
        planned.append(min(left, max(-(-left // 2), _LEAST)))
        left -= planned[-1]
    return planned


def classes(
    answers: Mapping[int, str | None], same: Callable[[str, str], bool]
) -> list[AnswerClass]:
    """Return the classes of ``answers``, the winner first.

    Args:
        answers: by vote; None abstains.
        same: whether two answers say the same. Each answer is compared with the first of each class.
    """
    found: list[AnswerClass] = []
    for vote in sorted(answers):
        text = answers[vote]
        if text is None:
            continue
        for place, one in enumerate(found):
            if same(one.text, text):
                found[place] = AnswerClass(one.text, (*one.votes, vote))
                break
        else:
            found.append(AnswerClass(text, (vote,)))
    return sorted(found, key=lambda one: one.rank)


def decided(ranked: list[AnswerClass], *, cast: Iterable[int], requested: int) -> bool:
    """Whether the votes that are missing can no longer change the winner.

    Args:
        ranked: the classes so far, the leader first.
        cast: the votes that are there, abstentions among them.
        requested: how many there are to be.
    """
    there = set(cast)
    missing = [vote for vote in range(requested) if vote not in there]
    if not missing:
        return True
    if not ranked or len(there) < _LEAST:
        return False
    leader, *rivals = ranked
    # The best that can become of each: it gets all that is missing. A new class has nothing else.
    best = [(-len(rival.votes) - len(missing), min(rival.votes[0], missing[0])) for rival in rivals]
    return leader.rank < min([*best, (-len(missing), missing[0])])
