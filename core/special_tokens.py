"""Special tokens of a tokenizer, and how text that spells one is kept from becoming one. Pure.

A chat template and the text in it are tokenized as one string, so a marker such as ``<|im_end|>`` in a question
would end the user's turn. A space inside the marker prevents that: no normalizer removes it, no special token has one
there, and the model reads nearly the same text.
"""

import functools
import re
from collections.abc import Iterable
from typing import Final

#: Qwen2-VL and QVQ: ``added_tokens_decoder`` of their ``tokenizer_config.json``.
QWEN2_VL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
#: Markers of other families that may be special tokens; the engine reports which of them are.
CANDIDATES: Final = (
    *QWEN2_VL,
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<mask>", "[INST]", "[/INST]"),
    *("[IMG]", "[IMG_BREAK]", "[IMG_END]", "<image>", "</image>", "<video>", "<audio>"),
    *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"),
    *("<image_soft_token>", "<fake_token_around_image>", "<end_of_utterance>"),
    *("<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>", "<box>", "</box>"),
    *("<quad>", "</quad>", "<begin_of_box>", "<end_of_box>"),
)

#: Controls, combining marks, and invisible characters: some normalizers drop them.
_UNSEEN = (
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u0300-\u036f\U000e0000-\U000e01ef\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]*"
)
#: Characters that a compatibility normalizer turns into ``<`` and ``|``.
_OPENING, _BAR = "[<\uff1c\ufe64]", "[|\uff5c]"
_BARRED = f"{_OPENING}{_UNSEEN}{_BAR}"
_CLOSING = "[>\uff1e\ufe65]"
#: The longest name of a marker; no vocabulary has a longer one.
_NAME_CHARS = 64
#: The distance of a fullwidth character from its ASCII one.
_FULLWIDTH = 0xFEE0
_ASCII_VISIBLE = range(0x21, 0x7F)


class SpecialTokens:
    """The special tokens of one tokenizer, and everything that has the shape ``<|…|>``.

    Args:
        tokens: the tokens as the tokenizer spells them. A token of one character is not distinguishable
            from ordinary text, and is left out.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = frozenset(token for token in tokens if len(token) > 1)
        # What the shape covers needs no alternative of its own.
        self._others = sorted(token for token in self.tokens if not token.startswith("<|"))
        openings = {variant for token in self._others for variant in _variants(token[0])}
        self._openings = tuple(sorted(openings.union("<\uff1c\ufe64")))

    # Compiled on first use: every process imports the tokens, few of them look for them.
    @functools.cached_property
    def _head(self) -> re.Pattern[str]:
        heads = [f"{_OPENING}{_UNSEEN}(?={_BAR})"]
        heads += [
            f"{_spelled(token[0])}(?={_UNSEEN}{_spelled(token[1:])})" for token in self._others
        ]
        return re.compile("|".join(heads), re.IGNORECASE)

    @functools.cached_property
    def _whole(self) -> re.Pattern[str]:
        whole = [f"{_BARRED}[^\\s|]{{1,{_NAME_CHARS}}}{_BAR}{_UNSEEN}{_CLOSING}"]
        # Of several matches, the longest is reported.
        whole += [_spelled(token) for token in sorted(self.tokens, key=len, reverse=True)]
        return re.compile("|".join(whole), re.IGNORECASE)

    def neutralize(self, text: str) -> str:
        """Return ``text`` with a space inside every marker that could become a special token.

        The position of the space depends only on the text before it, so that a longer text keeps the beginning of a
        shorter one, which the engine's prefix cache holds.
        """
        if not self._suspicious(text):
            return text
        return self._head.sub(_spaced, text)

    def first_in(self, text: str) -> str | None:
        """Return the first special token that ``text`` spells, or None."""
        if not self._suspicious(text):
            return None
        match = self._whole.search(text)
        return match[0] if match else None

    def _suspicious(self, text: str) -> bool:
        """Whether the patterns need to look at ``text``: this check is a thousand times faster."""
        return any(opening in text for opening in self._openings)


def _spaced(match: re.Match[str]) -> str:
    return f"{match[0]} "


def _spelled(token: str) -> str:
    """Return a pattern for ``token`` with characters of any width, and invisible characters between them."""
    return _UNSEEN.join(map(_widths, token))


def _widths(character: str) -> str:
    return f"[{''.join(map(re.escape, sorted(_variants(character))))}]"


def _variants(character: str) -> set[str]:
    """Return ``character`` in both cases and both widths."""
    cases = {character, character.lower(), character.upper()}
    plain = {case for case in cases if len(case) == 1}
    wide = {chr(ord(case) + _FULLWIDTH) for case in plain if ord(case) in _ASCII_VISIBLE}
    return plain | wide


#: For an engine that has not reported its own.
ASSUMED: Final = SpecialTokens(QWEN2_VL)
