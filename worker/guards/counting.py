"""Finds a count without end in a growing text: numbers, words or letters that rise at one place of each item. Pure.

A count of the objects in an image rises as well, so a count is without end only when it has more items than an image
can plausibly have. What does not rise is no count: a text that says the same numbers again repeats itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.answers import numerals

#: Items and characters of a count beyond which it has no end. Bare numbers are short, so many of them are no proof.
_MOST_ITEMS = 300
_LEAST_CHARS = 4000
#: The same for alike items: long ones, or the rows of a grid.
_MOST_ALIKE = 100
_ALIKE_CHARS = 16_000
#: Items, and characters of items, that stand when a count is cut.
_STANDING_ITEMS = 100
_STANDING_CHARS = 6000
#: Numbers that do not rise, in a row, after which a count starts anew.
_MISSES = 20
#: The largest step from one item to the next.
_STEP = 1000
#: Places of which a count is followed, and the characters after which one of them is dropped.
_PLACES = 512
_FORGOTTEN = 8000
#: Characters before a number that can belong to its place, and after it that can belong to it.
_BEFORE = 24
_AHEAD = 96

_ORDINALS = {
    "first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight", "ninth": "nine",
    "twelfth": "twelve",
}  # fmt: skip
_UNITS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million"
)
_WORD = rf"(?:{'|'.join(_ORDINALS)}|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ieth|(?:{_UNITS})(?:th)?)"
# Every quantifier has a bound or is possessive, and each pattern starts with a set of characters: the search takes
# linear time for any text, and little of it for text without numbers.
_SYMBOLS = re.compile(
    r"(?P<digits>[0-9][0-9]{0,17}+(?:[.:/-][0-9]{1,18}+|,[0-9]{3}(?![0-9])){0,4}+)"
    r"|(?P<letters>[A-Z](?![a-z])(?<![^\W_].)[A-Z]{0,5}+(?![^\W_]))"
)
_ROMAN = re.compile(r"(?P<roman>[IVXLCDM](?<![^\W_].)[IVXLCDM]{0,14}+(?![^\W_]))")
_WORDS = re.compile(
    rf"(?P<words>(?<![^\W\d_])(?i:{_WORD}(?:[ -](?:and[ -])?{_WORD}){{0,8}}+)(?![^\W\d_]))"
    r"|(?P<chinese>[零〇一二两三四五六七八九十百千万亿]{1,16}+)"
)
_LISTED = re.compile(r"(?P<listed>[a-z](?:(?<![^\W_].)|[a-z](?<![^\W_]..))(?=[).]))")
#: A count without end in words has a hundred; "one" and "first" alone are frequent in any text.
#: Roman numerals above thirty have one of these.
_TENS = ("XX", "XL", "LX", "XC", "CX", "CC", "CD", "DC")
_SCALES = ("hundred", "thousand", "百", "千")
#: Parentheses or lines in a thousand characters that can be a list.
_LIST = 24
#: The place of a number: the last word before it and the signs between them.
_PLACE = re.compile(r"(?:[^\W\d_]{1,16})?[^\w]{0,6}\Z")
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
#: The numbers of a sentence that can be an item. "A gull" and "I see" start with words.
_ANY = re.compile(
    r"(?P<digits>[0-9]{1,18}+)"
    r"|(?P<letters>[A-Z](?![a-z])(?<![^\W\d_].)[A-Z]{0,5}+(?![^\W_])(?!(?<=\b[AI]) [a-z])|[a-z](?<=[0-9].)(?![^\W_]))"
    rf"|{_WORDS.pattern}|{_LISTED.pattern}"
)
#: Alike sentences with numbers that make a count.
_LEAST_ITEMS = 5
#: The share of the steps of a count that go in one direction, and of its numbers that are new.
_MOVING = 0.9
#: The largest of these steps: numbers that double are no count.
_SMALL_STEP = 100
_DIGITS = re.compile(r"[0-9]++")
_SENTENCE_END = re.compile(r"[\n.!?;。！？；]\s*+")  # noqa: RUF001 - Chinese punctuation
_PART_END = re.compile(r"[,，、\s]\s*+")  # noqa: RUF001 - same
#: Characters of an item within which its start is searched.
_ITEM = 200

Value = tuple[int, ...]


@dataclass(frozen=True)
class Number:
    """A number in a text.

    Attributes:
        start: its first character.
        place: its kind and what stands before it: the same for all items of a count.
        value: its parts.
    """

    start: int
    place: str
    value: Value


@dataclass
class _Count:
    """A count at one place, upwards.

    Attributes:
        start: the position of its first item.
        record: the highest number so far.
        items: how many there are.
        misses: numbers since the record that did not rise.
        standing: the position of the first item that does not stand if the count is cut.
    """

    start: int
    record: Value
    items: int = 1
    misses: int = 0
    standing: int = 0

    def add(self, position: int, value: Value) -> None:
        """Add the next number at this place."""
        if self.record < value and value[0] - self.record[0] <= _STEP:
            self.record, self.misses = value, 0
            self.items += 1
            if not self.standing and (
                self.items > _STANDING_ITEMS or position - self.start >= _STANDING_CHARS
            ):
                self.standing = position
        elif value != self.record:
            self.misses += 1
            if self.misses > _MISSES:
                self.start, self.record = position, value
                self.items, self.misses, self.standing = 1, 0, 0


class _Place:
    """The counts at one place: one that rises and one that falls."""

    def __init__(self, number: Number) -> None:
        self.seen = number.start
        self._up = _Count(number.start, number.value)
        self._down = _Count(number.start, _negative(number.value))

    def add(self, number: Number) -> None:
        """Add the next number."""
        self.seen = number.start
        self._up.add(number.start, number.value)
        self._down.add(number.start, _negative(number.value))

    @property
    def longest(self) -> _Count:
        """The count with more items."""
        return max(self._up, self._down, key=lambda count: count.items)


def _negative(value: Value) -> Value:
    return tuple(-part for part in value)


@dataclass(frozen=True)
class EndlessCount:
    """A count without end.

    Attributes:
        start: the position of its first number.
        standing: the end of the items that stand.
        items: how many it has so far.
    """

    start: int
    standing: int
    items: int


class Counter:
    """Follows all counts of a growing text, in time linear in its length."""

    def __init__(self) -> None:
        self._readers = [
            _Reader(_SYMBOLS, lambda _: True),
            _Reader(_WORDS, lambda text: any(scale in text for scale in _SCALES)),
            _Reader(_ROMAN, lambda text: any(tens in text for tens in _TENS)),
            _Reader(_LISTED, lambda text: max(text.count(")"), text.count("\n")) >= _LIST),
        ]

    def see(self, text: str, base: int, *, alike: bool) -> EndlessCount | None:
        """Read the new end of a text; return its count without end, if there is one.

        Args:
            text: the end of the text.
            base: the position of its first character.
            alike: whether the end of the text is all alike.
        """
        for reader in self._readers:
            if (count := reader.see(text, base, alike=alike)) is not None:
                return count
        return None


class _Reader:
    """Follows the counts in one kind of numbers.

    Args:
        pattern: the numbers.
        may: whether a text can have a count of them.
    """

    def __init__(self, pattern: re.Pattern[str], may: Callable[[str], bool]) -> None:
        self._pattern = pattern
        self._may = may
        self._began = False
        self._read = 0
        self._number_end = 0
        self._places: dict[str, _Place] = {}

    def see(self, text: str, base: int, *, alike: bool) -> EndlessCount | None:
        """Read the new end of a text."""
        until = base + len(text) - _AHEAD
        if not self._may(text[max(0, self._read - base) :]):
            self._read = max(self._read, until)
            return None
        if not self._began:
            # The count began before it could be seen.
            self._began, self._read = True, base
        for number in self._numbers(text, base, until):
            place = self._places.get(number.place)
            if place is None:
                self._make_room(number.start)
                self._places[number.place] = _Place(number)
                continue
            place.add(number)
            count = place.longest
            chars = number.start - count.start
            if (count.items > _MOST_ITEMS and chars >= _LEAST_CHARS) or (
                count.items > _MOST_ALIKE and chars >= _ALIKE_CHARS and alike
            ):
                return EndlessCount(count.start, _item_end(text, base, count.standing), count.items)
        return None

    def _numbers(self, text: str, base: int, until: int) -> Iterator[Number]:
        for match in self._pattern.finditer(text, max(0, self._read - base)):
            start = match.start() + base
            if start >= until:
                break
            before = text[max(0, match.start() - _BEFORE, self._number_end - base) : match.start()]
            self._read = self._number_end = match.end() + base
            if value := _value(match):
                yield Number(start, f"{match.lastgroup} {_place(before)}", value)
        self._read = max(self._read, until)

    def _make_room(self, position: int) -> None:
        """Drop the counts that did not go on."""
        if len(self._places) >= _PLACES:
            self._places = {
                name: place
                for name, place in self._places.items()
                if place.seen >= position - _FORGOTTEN and place.longest.items > 1
            }
            if len(self._places) >= _PLACES:
                self._places.clear()


def _place(before: str) -> str:
    """Return the end of the text before a number that is the same in each item."""
    match = _PLACE.search(before)
    place = match[0] if match else ""
    # Chinese has no spaces between words: one character is the word.
    while len(place) > 1 and not place[0].isascii() and place[0].isalpha() and place[1].isalpha():
        place = place[1:]
    return place.lower()


def _value(match: re.Match[str]) -> Value:
    """Return the parts of a number, or none if it is no number."""
    text = match[0]
    match match.lastgroup:
        case "digits":
            return tuple(map(int, _DIGITS.findall(text.replace(",", ""))))
        case "words":
            number = numerals.english(re.sub(r"[a-z]+", _cardinal, text.lower()))
        case "chinese":
            number = numerals.chinese(text)
        case "roman":
            number = _roman(text)
        case _:
            number = _letters(text)
    return () if number is None else (number,)


def _letters(text: str) -> int:
    """Return the number of ``text`` in the order A to Z, AA to ZZ."""
    number = 0
    for letter in text.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def _roman(text: str) -> int:
    """Return the number of a Roman numeral."""
    digits = [_ROMAN_DIGITS[letter] for letter in text]
    return sum(
        -digit if digit < following else digit
        for digit, following in zip(digits, [*digits[1:], 0], strict=True)
    )


def _cardinal(match: re.Match[str]) -> str:
    """Return the cardinal of an ordinal: ``four`` of ``fourth``, ``twenty`` of ``twentieth``."""
    word = match[0]
    if word in _ORDINALS:
        return _ORDINALS[word]
    if word.endswith("ieth"):
        return word.removesuffix("ieth") + "y"
    return word.removesuffix("th")


def _item_end(text: str, base: int, position: int) -> int:
    """Return the end of the last item before a position, or the position itself if that is not in ``text``."""
    at = position - base
    for end in (_SENTENCE_END, _PART_END):
        ends = [match.end() for match in end.finditer(text, max(0, at - _ITEM), max(0, at))]
        if ends:
            return ends[-1] + base
    return position


def count(sentences: Sequence[str]) -> int:
    """Return how many of the last sentences of a text are items of a count, whose numbers move on."""
    items: dict[str, list[tuple[Value, Value]]] = {}
    for sentence in sentences:
        matches = list(_ANY.finditer(sentence))
        if matches:
            head = sentence[: matches[0].start()].strip().lower()
            items.setdefault(head, []).append(
                (_values(matches, roman=False), _values(matches, roman=True))
            )
    return sum(
        len(numbers)
        for numbers in items.values()
        if len(numbers) >= _LEAST_ITEMS and any(map(moves_on, zip(*numbers, strict=True)))
    )


def _values(matches: Sequence[re.Match[str]], *, roman: bool) -> Value:
    """Return the numbers of a sentence; capitals can be Roman numerals."""
    return tuple(
        _roman(match[0])
        if roman and set(match[0]) <= _ROMAN_DIGITS.keys()
        else next(iter(_value(match)), 0)
        for match in matches
    )


def moves_on(numbers: Sequence[Value]) -> bool:
    """Return whether the numbers of alike sentences move on, so that the sentences count and do not go around."""
    if len(set(numbers)) < _MOVING * len(numbers):
        return False
    width = min(map(len, numbers))
    columns = ([(number[place],) for number in numbers] for place in range(width))
    return _steady(numbers) or any(map(_steady, columns))


def _steady(numbers: Sequence[Value]) -> bool:
    """Return whether nearly all steps go in one direction."""
    steps = list(itertools.starmap(_step, itertools.pairwise(numbers)))
    return max(steps.count(1), steps.count(-1)) >= _MOVING * len(steps)


def _step(left: Value, right: Value) -> int:
    """Return the direction of a step, 0 if it is too large for a count."""
    differing = next((pair for pair in zip(left, right, strict=False) if pair[0] != pair[1]), None)
    if differing is None or abs(differing[1] - differing[0]) > _SMALL_STEP:
        return 0
    return 1 if right > left else -1
