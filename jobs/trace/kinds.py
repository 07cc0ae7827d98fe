"""Classifies a sentence of a trace by its words: one readable table, in English and Chinese. Pure."""

from __future__ import annotations

import enum
import re

from jobs.document import markup


class StepKind(enum.StrEnum):
    """The kind of a reasoning step."""

    #: Describes the image.
    OBSERVATION = "observation"
    #: Draws an inference.
    INFERENCE = "inference"
    #: Doubts an earlier statement, or checks it again.
    RECHECK = "re-check"
    #: States a result.
    CONCLUSION = "conclusion"
    #: The final answer.
    ANSWER = "answer"


#: Text before the first significant word of a sentence: Markdown, numbers, and filler words.
_OPENING = (
    r"^[\W\d_]*+"
    r"(?:(?:(?:but|and|so|ok|okay|oh|well|yes|no|now|then)\b|好的?|那么?|但是?)[\s,.，。]*+){0,3}"  # noqa: RUF001 - Chinese punctuation
)
_AGAIN = r"(?:check|count|verify|confirm|look|examine|read|go|see|recount|review)"


def _anywhere(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases), re.IGNORECASE | re.DOTALL)


def _first(*phrases: str) -> re.Pattern[str]:
    return re.compile(f"{_OPENING}(?:{'|'.join(phrases)})", re.IGNORECASE | re.DOTALL)


#: The first matching row decides; a sentence without a matching row has the kind of the sentence before it.
_TABLE = (
    (StepKind.ANSWER, markup.BOX),
    (
        StepKind.RECHECK,
        _first(
            r"wait|hmm+|hold on|actually|alternatively|on second thought",
            r"let['\u2019]?s? (?:me )?(?:re-?|double[- ]?)",
            r"等等|等一下|等下|且慢|不对|嗯|或者",
        ),
    ),
    (
        StepKind.RECHECK,
        _anywhere(
            rf"\blet me (?:re|double)|\b(?:re|double)-?{_AGAIN}",
            rf"\b{_AGAIN}\b.{{0,40}}\b(?:again|once more|more carefully)\b",
            r"\b(?:another|a closer|a second) look\b|\bto be sure\b|\bi (?:may|might) have (?:missed|mis)",
            r"我再|再(?:次|看|数|检查|确认|仔细|核对|想)|重新|检查一下|核对|验证一下|确认一下",
            r"仔细(?:看|检查|核对)一?(?:下|遍)",
        ),
    ),
    (
        StepKind.CONCLUSION,
        _anywhere(
            r"\b(?:the|my|our) (?:(?:final|correct|right) )?(?:answer|total|result|count)(?: \w+){0,2}"
            r" (?:is|should be|must be|comes to)\b",
            r"\bin (?:conclusion|summary|total)\b|\bto (?:conclude|sum up|summari[sz]e)\b|\bi(?: can)? conclude\b",
            r"答案(?:是|为|应该是|就是|:|\uff1a)|结论(?:是|:|\uff1a)",
            r"综上|总之|总的来说|最终(?:结果|结论|得出)|得出结论|(?:一共|总共|共计|合计)(?:有|是|为)",
        ),
    ),
    (
        StepKind.CONCLUSION,
        _first(
            r"therefore|thus|hence|consequently|overall|all in all", r"因此|所以|由此|可见|于是"
        ),
    ),
    (
        StepKind.INFERENCE,
        _first(
            r"since|because|if|given|suppose|assum|considering",
            r"this (?:means|implies|suggests)|that (?:means|leaves|makes)",
            r"因为|由于|如果|假设|既然|这(?:意味着|说明|表明)|根据",
        ),
    ),
    (
        StepKind.OBSERVATION,
        _anywhere(
            r"\bi (?:can )?(?:also )?(?:see|notice|observe|spot)\b|\blook(?:ing)? at\b",
            r"\bthere(?:['\u2019]s| is| are| seems?| appears?)\b|\bseems? to (?:be|show)\b",
            r"\b(?:image|picture|photo|figure|diagram|chart|graph|scene) (?:\w+ )?"
            r"(?:shows?|has|contains?|depicts?|is|displays?)\b",
            r"\bin the (?:image|picture|photo|background|foreground|middle|cent(?:er|re)|corner|distance)\b",
            r"\b(?:on|to|at|near|in) the (?:\w+ )?(?:left|right|top|bottom)\b",
            r"\b(?:is|are) (?:labell?ed|marked|visible|shown|located|wearing|standing|sitting)\b",
            r"\b(?:have|got) (?:a|an|this|the) (?:image|picture|photo|figure|diagram)\b",
            # The format of tiny-qvq: the position of a shape in the grid.
            r"^\(\d+,\d+\) ",
            r"图(?:里|上|中|片|像|的|显示|展示)|照片|画(?:面|里|上|中)",
            r"看到|看见|看出|可以看|观察|显示|(?:左|右|上|下|中)(?:边|侧|面|方|间)|位于|标有|标着",
            r"有(?:\d+|[一二两三四五六七八九十几])[只个条棵辆位名张块座匹朵]",
        ),
    ),
    (
        StepKind.INFERENCE,
        _anywhere(
            r"\b(?:so|means?|implies|suggests?|must|would|could|probably|maybe|perhaps|likely)\b",
            r"\b(?:i think|i need|need to|let['\u2019]s)\b|[=≈≤≥<>]|\\(?:frac|sqrt|times|cdot|sum|implies)",
            r"\b(?:equals?|plus|minus|times|divided by|sum|difference|formula|equation|theorem)\b",
            r"可能|也许|应该|说明|意味|那么|计算|等于|加上|减去|乘以|除以|公式|需要|那就",
        ),
    ),
)


#: Words that take back what was said before; unlike those of a re-check, no instruction begins with them.
_REOPENING = _first(
    r"wait\b|hmm+|hold on|but wait|on second thought|let me (?:re-?|double[- ]?)(?:check|count"
    r"|verify|confirm|think|examine|consider)"
    r"|let['\u2019]?s (?:re-?|double[- ]?)(?:check|count|verify|confirm|think|examine|consider)"
    r"|let me (?:check|count|look|verify)\b.{0,40}\b(?:again|once more)|i (?:made"
    r"|think i made) (?:a|an) (?:mistake|error)",
    r"等等|等一下|等下|且慢|不对|让?我再|再(?:看|数|检查|确认|核对)一",
)


def reopens(paragraph: str) -> bool:
    """Whether ``paragraph`` begins with words that take back what was said before: "Wait, …"."""
    return _REOPENING.match(paragraph) is not None


def kind_of(sentence: str) -> StepKind | None:
    """Return the kind of ``sentence``, or None if no row matches."""
    for kind, pattern in _TABLE:
        if pattern.search(sentence):
            return kind
    return None
