"""Special tokens in texts: they are broken up or named, and other text is unchanged."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import special_tokens
from core.special_tokens import SpecialTokens

#: With and without bars, nested, overlapping.
TOKENS = (*special_tokens.QWEN2_VL, "<tool_call>", "</think>", "[INST]", "<s>", "ab<", "b<ab")
SPECIALS = SpecialTokens(TOKENS)
PIECES = st.sampled_from(
    [
        *TOKENS,
        *("<|", "|>", "<", "|", ">", "im_end", "image_", "pad", "<|image_", "pad|>", "tool_call"),
        *(" ", "\n", "\u200b", "\ufeff", "\u0338", "\u212a", "\uff1c", "\uff5c", "\uff1e", "数", "x", "a", "b"),
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def spelled(text: str) -> set[str]:
    return {token for token in TOKENS if token in text}


@given(TEXTS)
def test_no_text_that_is_sent_to_the_engine_contains_a_special_token(text: str) -> None:
    sent = SPECIALS.neutralize(text)

    assert not spelled(sent)
    # The engine tokenizes the text, joins the tokens, and tokenizes the result, which is normalized by then.
    for form in ("NFC", "NFKC"):
        assert not spelled(unicodedata.normalize(form, sent))
    unseen = {"\u200b", "\ufeff"}
    assert not spelled("".join(char for char in sent if char not in unseen))


@given(TEXTS)
def test_breaking_up_only_adds_spaces_and_is_idempotent(text: str) -> None:
    sent = SPECIALS.neutralize(text)

    assert sent.replace(" ", "") == text.replace(" ", "")
    assert SPECIALS.neutralize(sent) == sent


@given(TEXTS, TEXTS)
def test_a_growing_text_is_sent_with_the_same_prefix(text: str, more: str) -> None:
    barred = SpecialTokens(special_tokens.QWEN2_VL)

    assert barred.neutralize(text + more).startswith(barred.neutralize(text))


@given(TEXTS)
def test_text_without_special_tokens_is_unchanged(text: str) -> None:
    harmless = text.replace("<", "").replace("\uff1c", "").replace("[", "")

    assert SPECIALS.neutralize(harmless) is harmless
    assert SPECIALS.first_in(harmless) is None


@pytest.mark.parametrize("token", TOKENS)
def test_a_special_token_is_found_and_broken_up_at_any_position(token: str) -> None:
    for text in (token, f"a{token}", f"数{token} b", token + token):
        assert SPECIALS.first_in(text) is not None
        assert token not in SPECIALS.neutralize(text)


@pytest.mark.parametrize("token", ["<|im_end|>", "<tool_call>"])
def test_other_widths_and_cases_are_found_too(token: str) -> None:
    wide = "".join(chr(ord(char) + 0xFEE0) for char in token)

    for text in (wide, token.upper(), "\u200b".join(token)):
        assert SPECIALS.first_in(text) == text
        assert SPECIALS.neutralize(text) != text


@pytest.mark.parametrize(
    "text", ["a < b | c > d", "f <| x", "<p>", "|> x", "<tool_cal", "x <", "[1]"]
)
def test_other_text_is_not_reported_as_a_special_token(text: str) -> None:
    assert SPECIALS.first_in(text) is None


def test_the_form_of_a_special_token_is_enough_for_any_tokenizer() -> None:
    nothing_known = SpecialTokens(())

    assert nothing_known.neutralize("x<|anything|>") == "x< |anything|>"
    assert nothing_known.first_in("x<|anything|>") == "<|anything|>"
    assert nothing_known.neutralize("<tool_call>") == "<tool_call>"


def test_a_token_of_one_character_is_ordinary_text() -> None:
    assert SpecialTokens(["\n", "a"]).neutralize("a\na") == "a\na"
