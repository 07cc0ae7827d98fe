"""The spelling in which phrases are found: a phrase is in a text exactly if its spelling is in the text's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import phrases
from jobs.phrases import Phrase

#: Letters, digits, Chinese, kana and punctuation, in all neighbourhoods.
ALPHABET = "abcé12圆形的るß .,_\\{-\n。😀"
CJK = "圆形的る"
texts = st.text(st.sampled_from(ALPHABET), max_size=60)


def begins(text: str, at: int) -> bool:
    """Whether a word begins there, or something that is no part of a word stands there."""
    pair = text[max(at - 1, 0) : at + 1]
    return at == 0 or not all(char.isalnum() and char not in CJK for char in pair)


def spelled(text: str) -> str:
    """Return the spelling of a short text."""
    return "".join(phrases.spellings(text))


def words(spelling: str) -> list[str]:
    return [word for word in spelling.split() if word[0].isalnum()]


def phrase_of(text: str) -> Phrase | None:
    """Return the phrase in ``text``, or None when it is refused."""
    try:
        return Phrase.of(text)
    except ValueError:
        return None


def folded(text: str) -> str:
    """Return what counts of a text, worked out in another way than the product does."""
    return " ".join(text.replace("\n", " ").casefold().split(" "))


def squeezed(text: str) -> str:
    while "  " in text:
        text = text.replace("  ", " ")
    return text


@given(texts.filter(bool), st.data())
def test_a_part_of_a_text_that_starts_at_a_word_matches(text: str, data: st.DataObject) -> None:
    start = data.draw(st.sampled_from([at for at in range(len(text)) if begins(text, at)]))
    end = data.draw(st.integers(start + 1, len(text)))
    phrase = phrase_of(text[start:end])
    if phrase is None:
        return

    whole = spelled(text)

    assert phrase.spelling in whole
    known, wanted = words(whole), list(phrase.words)
    at = range(len(known) - len(wanted) + 1)
    last = wanted.pop()
    assert any(
        known[place : place + len(wanted)] == wanted
        and (
            known[place + len(wanted)].startswith(last)
            if phrase.unfinished
            else known[place + len(wanted)] == last
        )
        for place in at
    )


@given(texts, texts)
def test_a_match_is_in_the_text(text: str, wanted: str) -> None:
    phrase = phrase_of(wanted)

    if phrase is not None and phrase.spelling in spelled(text):
        assert squeezed(folded(wanted)).strip() in squeezed(folded(text))


def test_chinese_is_split_into_pairs_and_punctuation_into_words() -> None:
    assert spelled("Ein Kreis,有6个圆形。").split() == [
        "ein", "kreis", ",", "有", "6", "个圆", "圆形", "。",
    ]  # fmt: skip


def test_case_and_width_and_line_breaks_do_not_matter() -> None:
    assert spelled("\uff33\uff29\uff38\n\n  Straße \uff11\uff12") == spelled("six strasse 12")


@pytest.mark.parametrize(
    ("text", "found", "unfinished"),
    [
        ("six circ", ("six", "circ"), True),
        ("six circles.", ("six", "circles"), False),
        ("圆形的", ("圆形", "形的"), True),
        ("圆 circle", ("circle",), True),
        ("see a", ("see",), False),
        ("\\boxed{6}", ("boxed", "6"), False),
    ],
)
def test_the_first_and_last_words_may_be_parts_of_longer_ones(
    text: str, found: tuple[str, ...], *, unfinished: bool
) -> None:
    phrase = phrase_of(text)

    assert phrase is not None
    assert (phrase.words, phrase.unfinished) == (found, unfinished)


@pytest.mark.parametrize("text", ["", " ", "a", "圆", "6", "a b", "...", "圆。", "。圆", "6 圆"])
def test_a_phrase_that_is_too_short_is_rejected_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError, match="two letters or digits, or two Chinese characters"):
        Phrase.of(text)


def test_a_phrase_has_a_maximum_length() -> None:
    assert Phrase.of("x" * 200).words == ("x" * 200,)
    with pytest.raises(ValueError, match="at most 200 characters"):
        Phrase.of("x" * 201)


def test_the_parts_of_a_long_text_contain_every_phrase() -> None:
    text = "".join(f"line {number} 圆形\n" for number in range(20_000))
    pieces = list(phrases.spellings(text))

    assert len(pieces) > 4
    assert max(map(len, pieces)) < 500_000
    for number in range(0, 20_000, 97):
        wanted = Phrase.of(f"line {number} 圆形 line {number + 1} 圆")
        assert any(wanted.spelling in piece for piece in pieces), number
    assert list(phrases.spellings(" \n ")) == []
