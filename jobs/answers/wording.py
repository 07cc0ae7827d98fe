"""What the words of a trace say about it: whether it thinks, announces, offers, doubts or explains. Pure."""

from __future__ import annotations

import re

from jobs.answers import remarks
from jobs.document import markup
from jobs.trace.kinds import StepKind, kind_of

_ENDINGS = (*".!?。！？", *markup.COLONS)  # noqa: RUF001 - Chinese punctuation
_QUESTIONS = ("?", "？")  # noqa: RUF001 - a full-width question mark
#: The most characters of an output that explains something and is an answer as a whole.
_LONG = 16_000
#: The most characters of a last paragraph that states an answer, without and with a conclusion in it.
SHORT, CONCLUDING = 80, 400
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|might|could|not sure|unsure|let['\u2019]?s|let me(?! know)|need to|i think"
    r"|i['\u2019]ll|hmm|if)\b|也许|可能|或许|不确定|让我|需要|如果",
    re.IGNORECASE,
)
#: Words of a thought: an output with them is not an answer as a whole.
_THOUGHT = re.compile(
    r"\b(?:let me(?! know| explain| help| walk)|wait,|hmm|hold on|i['\u2019]m not sure|i need to|i think"
    r"|let['\u2019]?s (?:see|check|count|look|think|analy[sz]e|break|start|begin|verify|examine"
    r"|find|calculate|compute|solve|figure"
    r"|try|go|review|determine|double|re))(?![A-Za-z])|让我|等等|我再|再数|不对，|我需要|我想",  # noqa: RUF001 - Chinese punctuation
    re.IGNORECASE,
)
#: Words of a long text that works something out, and the fewest equations in one.
_WORKED = re.compile(
    r"\bstep[- ]by[- ]step\b|\bstep 1\b|\bto solve\b|\Aokay\b|第一步|步骤一|^解[:：]",  # noqa: RUF001 - a full-width colon
    re.IGNORECASE | re.MULTILINE,
)
_EQUATIONS = 12
#: The beginning of a section that announces an answer and does not give it.
_ANNOUNCED = re.compile(
    r"\A\W*(?:to (?:answer|address|solve)\b|let['\u2019]?s|let us|first,)|\bwe (?:need|have"
    r"|must) (?:to )?|要回答|为了回答|首先",
    re.IGNORECASE,
)
#: The question has no answer, so the text has none.
_UNDETERMINED = re.compile(
    r"\banswers?\b[^.!?\n]{0,40}\b(?:can ?not|can['\u2019]?t|could not|needs?)\b"
    r"|(?:答案|选项).{0,12}(?:无法|不能|需要)",
    re.IGNORECASE,
)
#: What is said of an answer without stating one: "the answer depends on", "答案很明显".
_SPOKEN_OF = re.compile(
    r"\banswers?[ ](?:also |still |then |only )?(?:depends?|lies?|var(?:y|ies)|follows?|requires?|needs?|can|could|may"
    r"|might|has|have|comes?[ ](?:from|with)|makes?|matters?|does|did|will)\b"
    r"|答案.{0,2}(?:很|非常|十分|显而易见|明显|清楚|清晰|明确|不确定|不明|不唯一|取决于|未知|呼之欲出|可能有|见[上下]|如[上下])",
    re.IGNORECASE,
)
#: A last paragraph that offers help.
_OFFER = re.compile(
    r"[\W_]*(?:i hope (?:this|that|it) (?:helps|is)|(?:[a-z]{6} )?(?:let me know|feel free to)"
    r"|if you (?:have|need) (?:any|more)|would you like|(?:is|are) there (?:any|anything)"
    r"|希望(?:这|以上|对|能)|如果(?:你|您)?(?:还)?有|如有)",
    re.IGNORECASE,
)
_MOST_OFFER = 200
_ANSWER = re.compile(r"\banswers?\b|答案", re.IGNORECASE)


def thinks(text: str) -> bool:
    """Whether a text has words of a thought: such an output is not an answer as a whole."""
    return _THOUGHT.search(text) is not None


def announces(text: str) -> bool:
    """Whether the beginning of a section announces an answer and does not give it."""
    return _ANNOUNCED.search(text) is not None


def offers(text: str) -> bool:
    """Whether a last paragraph or line offers help."""
    return len(text) <= _MOST_OFFER and _OFFER.match(text) is not None


def concludes(paragraph: str) -> bool:
    """Whether the last paragraph of a thought states a result."""
    if paragraph.rstrip().endswith((*markup.COLONS, *_QUESTIONS, "…", "...")) or _HEDGE.search(
        paragraph
    ):
        return False
    kind = kind_of(paragraph[:CONCLUDING])
    if kind is StepKind.RECHECK:
        return False
    return len(paragraph) <= (CONCLUDING if kind is StepKind.CONCLUSION else SHORT)


def explains(text: str) -> bool:
    """Whether a long text explains, and does not work something out."""
    return (
        len(text) <= _LONG
        and text.rstrip(' *_)”"').endswith(_ENDINGS)
        and text.count("=") < _EQUATIONS
        and _WORKED.search(text) is None
    )


def judges(paragraph: str) -> bool:
    """Whether a paragraph says that there is no answer, judges one as right or wrong, or is short and speaks of one."""
    if _UNDETERMINED.search(paragraph):
        return True
    if len(paragraph) <= CONCLUDING and _SPOKEN_OF.search(paragraph):
        return True
    return any(
        _ANSWER.search(sentence) and remarks.remark(sentence) is not None
        for sentence in remarks.sentences(paragraph)
    )
