"""Folds a conversation into one question: the models answer single rounds.

A conversation of one turn is its text. Before a later turn come the earlier ones, each with the name of its role; an
image is named by its number among the images of the job. A conversation that is too long loses its oldest turns, with
their images, if its caller allows that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["user", "assistant"]

_EARLIER = "This is the conversation so far."
_NEWEST = "Answer this message:"
_NAMES = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class Turn:
    """What one side says.

    Attributes:
        role: who says it.
        text: all of its texts.
        images: its images, by their position among those of the submission.
        left_out: how many further images it has, which the job does not get.
    """

    role: Role
    text: str = field(repr=False)
    images: tuple[int, ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class FoldedConversation:
    """A conversation as the question of a job, and the positions of the images that it needs, in order."""

    question: str = field(repr=False)
    images: tuple[int, ...]


@dataclass(frozen=True)
class Conversation:
    """Turns from the oldest to the newest, which is the user's.

    Attributes:
        turns: never two of one role in a row.
        system: the text that the model gets after its own system prompt, or an empty one.
        drops_oldest: whether the oldest turns may be left out.
        place: the JSON pointer of the newest turn.
    """

    turns: tuple[Turn, ...]
    system: str = field(default="", repr=False)
    drops_oldest: bool = False
    place: str = "#"

    def whole(self) -> FoldedConversation:
        """Return the conversation with all turns."""
        return fold(self.turns)

    def too_long(self, longest: int) -> str:
        """Return the sentence for a conversation that is longer than ``longest`` characters."""
        return (
            f"The text of the conversation must have at most {longest:,} characters; it has "
            f"{len(self.whole().question):,}."
        )

    def foldings(self, *, longest: int) -> Iterator[FoldedConversation]:
        """Yield the conversation with all turns, then, if it may lose them, without its oldest one, two, and so on.

        Args:
            longest: the most characters of a question; longer ones are left out.
        """
        last = len(self.turns) if self.drops_oldest else 1
        # Texts that are too long are not folded again and again: together they can have many times their bytes.
        texts = sum(len(turn.text) for turn in self.turns)
        for first in range(last):
            if texts <= longest:
                folded = fold(self.turns[first:])
                if len(folded.question) <= longest:
                    yield folded
            texts -= len(self.turns[first].text)


def fold(turns: Sequence[Turn]) -> FoldedConversation:
    """Return ``turns`` as one question. Its images are numbered from 1 in their order."""
    positions = tuple(position for turn in turns for position in turn.images)
    numbers = {position: number for number, position in enumerate(positions, start=1)}
    *earlier, newest = turns
    if not earlier:
        return FoldedConversation(newest.text, positions)
    labeled = [f"{_NAMES[turn.role]}{_images(turn, numbers)}: {turn.text}" for turn in earlier]
    request = f"{_NEWEST[:-1]}{_images(newest, numbers)}:"
    return FoldedConversation(
        "\n\n".join([_EARLIER, *labeled, f"{request}\n\n{newest.text}"]), positions
    )


def _images(turn: Turn, numbers: dict[int, int]) -> str:
    """Return the note about the images of a turn: `` (image 1, image 2)``, or an empty text."""
    named = [f"image {numbers[position]}" for position in turn.images]
    if turn.left_out:
        named.append(
            "an image that is not shown" if turn.left_out == 1 else "images that are not shown"
        )
    return f" ({', '.join(named)})" if named else ""
