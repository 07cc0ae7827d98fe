"""Sentences that state an answer, and sentences about one, in English and Chinese. Pure.

"The answer is 6" states an answer. "The answer is wrong", "the answer is given in the text" and "if the answer is 6"
say something about an answer, and state none.
"""

from __future__ import annotations

import bisect
import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.document import markup

# Every pattern takes linear time for any text: its quantifiers are bounded or possessive.
# A line of a pattern covers one language or one kind of words.


class Remark(enum.StrEnum):
    """What a sentence says about an answer."""

    AFFIRMS = "affirms"
    DENIES = "denies"
    #: Neither: "the answer is clear", "if the answer is 6".
    NEUTRAL = "neutral"


_VERBS = (
    r"(?:is|are|was|equals?|should[ ]be|must[ ]be|would[ ]be|will[ ]be|has[ ]to[ ]be"
    r"|can[ ]only[ ]be|becomes?|remains?|stays?"
    r"|comes?[ ]out[ ](?:to[ ]be|to|as|at)|turns?[ ]out[ ]to[ ]be"
    r"|(?:seems|appears|looks|sounds|feels)(?:[ ]to[ ]be|[ ]like)?)"
    r"(?=n['\u2019]?t(?![A-Za-z])|[^A-Za-z]|\Z)"
    r"|['\u2019]s(?![A-Za-z])"
)
_ADVERBS = (
    r"(?:[ ]{1,2}+,?[ ]{0,2}+(?:therefore|thus|then|hence|sim(?:ply)|just|indeed|actually|clearly"
    r"|definitely|certainly|likely|probably"
    r"|most[ ]likely|in[ ]fact|of[ ]course|still|also|really|obvious(?:ly)|surely|undoubtedly"
    r"|evidently)(?![A-Za-z])(?:,)?+){0,3}+"
)
#: An answer is stated: the group ``negated`` turns the sentence around.
_ENGLISH = re.compile(
    r"\b(?:answers?|(?:correct|right|best|only|appropriate|suitable"
    r"|valid)[ ]{1,2}+(?:answer[ ])?(?:options?|choices?|statements?|letter|value|solution))"
    r"(?![A-Za-z])(?:[ ]{1,2}+(?:to|for|of|here|in|from|among|choice|option|that|which|we"
    r"|i)(?![A-Za-z])[^.!?\n:：。]{0,80}?)??"  # noqa: RUF001 - full-width
    rf"[ ]{{0,2}}+(?P<copula>{_VERBS}|=)(?P<negated>n['\u2019]?t(?![A-Za-z])"
    rf"|[ ]not(?![A-Za-z]))?+{_ADVERBS}[ ]{{0,2}}+(?P<colon>[:：]?)",  # noqa: RUF001 - Chinese punctuation
    re.IGNORECASE,
)
_CHINESE = re.compile(
    r"(?:答案|正确的?选项|正確的?選項)(?:就|应该|應該|应当|应|應|也|便|即|可能|只能|只会|当然|显然|确实|仍然|仍|还|還|都|最终|因此|因而|会|會|将|一定|肯定"
    r"|必然|大概){0,3}+"
    r"(?P<negated>并?不|并?非)?+(?P<copula>是|为|為|选择?|選擇?|等于|等於|=|(?=[:：]))[ ]{0,4}+(?P<colon>[:：]?)"  # noqa: RUF001 - full-width
)
#: A choice: 故选C.
_CHOSEN = re.compile(
    r"(?:(?:^|\n)[ ]{0,4}|道题|道題|故|所以|因此|因而|應|应该?|本题|这题|此题|该题|就|答案|正确|最终|最后"
    r"|综上|于是|那么|我)[，,]{0,1}(?:选择?|選擇?)(?:项|答案"  # noqa: RUF001 - Chinese punctuation
    r"|项为)?(?:是|为)?[:： ]{0,2}+"  # noqa: RUF001 - Chinese punctuation
    r"[*(（【]{0,3}(?P<letter>[A-Z](?:[ ]{0,1}[、,，和]?[ ]{0,1}[A-Z]){0,5}+)(?![A-Za-z])"  # noqa: RUF001 - Chinese punctuation
)
_PICKED = re.compile(
    r"\bi(?:['\u2019](?:ll|d|m)|[ ](?:will|would|must|should|can))?[ ](?:choose|pick|select"
    r"|go[ ]with|opt[ ]for|going[ ]with)"
    r"(?:[ ](?:the[ ])?(?:option|choice|answer|letter))?[ ][*(]{0,3}(?P<letter>(?-i:[A-Z]))(?=[)*.,;:]|\s{0,4}\Z|\n)",
    re.IGNORECASE,
)
#: Words before a statement, in its sentence, after which it states nothing.
_HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|when|unless|suppose|supposing|assum(?:e|es|ed|ing)|in case|maybe|perhaps"
    r"|might|could|why|how|doubt"
    r"|not (?:sure|certain)|(?:don['\u2019]?t|do not) (?:think|believe)|says?|said|claims?"
    r"|claimed|suggests? that)\b"
    r"|如果|假如|假设|若|要是|是否|也许|或许|万一|为什么|怀疑|不确定|不知道|不认为",
    re.IGNORECASE,
)
#: Words directly before "answer" that make it another answer.
_OTHER = re.compile(
    r"\b(?:wrong|incorrect|false|other|another|given|provided|reference|stated|marked|suggested"
    r"|proposed|example|sample|original"
    r"|initial|previous|earlier|prior|first|second|old|student['\u2019]?s?|no|any|an|possible"
    r"|each|every|which|what)[ ]{1,2}+\Z"
    r"|(?:错误|不正确|错|原来|原|之前|先前|上面|给出|给定|参考|标准|学生|每个|任何|哪个|什么)的?\Z",
    re.IGNORECASE,
)
#: Doubt after a statement, in its sentence.
_DOUBT = re.compile(
    r"\b(?:but|however|though|although)\b.{0,80}\b(?:check|verify|sure|certain|wrong|count|let me"
    r"|wait|again|confus\w*)\b"
    r"|\bor (?:maybe|perhaps|is it)\b|\b(?:wait|hmm)\b|[?？]\W*\Z|但(?:是|我)?.{0,20}(?:再|检查|确认|不确定)"  # noqa: RUF001 - Chinese punctuation
    r"|等等|吗\W*\Z|或者可能",
    re.IGNORECASE,
)
#: The edge of a word in Latin letters; other scripts have no spaces.
_WORD_END = r"(?![A-Za-z])"
_AFFIRMING = (
    r"(?:(?:very|quite|completely|absolutely|entirely|perfectly|in fact|indeed|both|all|also|still)[ ])?"
    r"(?:correct|right|true|valid|confirmed|verified|consistent|accurate|fine|sound|reasonable"
    r"|plausible|justified|supported"
    r"|validated|well[- ]supported|ok|okay|unchanged|the same|as (?:before|i said)|unlikely to change)"
)
_AFFIRMING_CJK = (
    r"(?:完全|非常|确实|都|仍然)?(?:正确|正確|对的|對的|对(?=\W|\Z)|没有?错误?|沒有?錯誤?"
    r"|没问题|没有问题|无误|無誤|准确|合理|一致|可靠|成立|吻合|可信)"
)
_DENYING = (
    r"(?:(?:very|quite|completely|absolutely|entirely|clearly|also|actually|probably|likely|in fact)[ ])?"
    r"(?:wrong|incorrect|false|mistaken|invalid|inaccurate|inconsistent|flawed|off|doubtful"
    r"|questionable|unsupported|incomplete"
    r"|not (?:quite |entirely |necessarily )?(?:correct|right|true|valid|accurate|consistent"
    r"|supported|reasonable|plausible|confirmed|verified))"
)
_DENYING_CJK = (
    r"(?:完全|确实|明显|显然)?(?:错误|錯誤|错的|錯的|错了|不正确|不正確|不对|不對"
    r"|有误|有誤|有问题|不准确|不合理|不一致|不成立|站不住脚)"
)
_NEUTRAL = (
    r"(?:(?:quite|very|pretty|fairly|rather|really|most)[ ])?"
    r"(?:clear|clearly|obvious|evident|straightforward|simple|easy|hard|difficult|tricky"
    r"|interesting|important|necessary|needed"
    r"|supposed|given (?:as|in|by|to|at|that|here|above|below)|given\W*\Z|marked|stated|shown"
    r"|provided|listed|labell?ed|expected"
    r"|known|unknown|unclear|uncertain|unsure|ambiguous|obtained|found|derived|determined"
    r"|computed|calculated|based on"
    r"|required|requested|asked|missing|hidden|incomplete|close|likely to|going to|meant|intended"
    r"|considered|being|been|presented"
    r"|that|what|where|how|why|whether|because|since|if|not|n['\u2019]t|never|either|one of"
    r"|some(?:where|thing)|somewhat|different|another"
    r"|to (?:be|find|determine|see|check|look|count|use|identify)|in (?:the )?(?:image|text"
    r"|question|options|list|form|format|terms)"
    r"|as (?:shown|stated|given|above|described|i|we|it)|above|already|so|my|your|also|something"
    r"|more|less|this|it|we|i"
    r"|among|not listed|up to|there|here|boxed|the (?:one|number|value|option|same|correct|right"
    r"|result|answer) (?:that|which|we|i|in|from|of the (?:question|options)))"
)
_NEUTRAL_CJK = (
    r"(?:很|非常|十分)?(?:显而易见|不言|简单|容易|清晰)|(?:否(?=正|对|合|是|有|为|准|一)|什么|多少|哪|几(?!何)|根据|基于|通过|由|给出|给定|给的|明确|清楚|显然|明显|已知|未知|确定|不确定|唯一|怎|如何"
    r"|不是|非|不|没有|没|我|你|这|那|它|要|需要|可以|能|在.{0,8}中|从|按|因为|由于)"
)
_ABOUT = (
    (Remark.DENIES, re.compile(rf"(?:{_DENYING}){_WORD_END}|{_DENYING_CJK}", re.IGNORECASE)),
    (Remark.AFFIRMS, re.compile(rf"(?:{_AFFIRMING}){_WORD_END}|{_AFFIRMING_CJK}", re.IGNORECASE)),
    (Remark.NEUTRAL, re.compile(rf"(?:{_NEUTRAL}){_WORD_END}|{_NEUTRAL_CJK}", re.IGNORECASE)),
)
#: Answers that begin like a remark: "right side", "the same color"; also true and false, which answer many questions.
_NO_REMARK = re.compile(
    r"right[ -](?:side|hand|turn|arrow|one|angle|triangle|of|and|to)\b|the same (?:colou?r"
    r"|size|shape|number|as)\b"
    r"|(?:true|false)\W*\Z|off\W*\Z|one of (?:the )?(?:two|three)\b|(?:不锈钢|没有|不是|不|不能|不会|不可以|非洲)\W*\Z",
    re.IGNORECASE,
)
#: Words that are an answer if they are emphasized: "the answer is **right**".
_EMPHASIZED = re.compile(
    r"(?:\*{1,3}|[\"“`(])(?:right|off|fine|clear|simple|valid|unknown)(?:\*{1,3}|[\"”`)])",
    re.IGNORECASE,
)
#: The most characters of a sentence that are read.
_REACH = 500
#: The most characters of an answer on a line on which more follows.
_SHORT = 40
#: The most statements that are read: the last ones of the text.
_MOST = 64
#: The end of an answer in its sentence: a reason follows.
_REASON = re.compile(
    r"[,，;；]?[ ]{0,2}+(?:\b(?:because|since|given that|due to|which|where|so that)\b|因为|由于|因為)"  # noqa: RUF001 - Chinese punctuation
    r"|[，；](?=这|即|理由|原因)",  # noqa: RUF001 - Chinese punctuation
    re.IGNORECASE,
)
_LINE_END = re.compile(r"[。！？!?]+|\.(?=\s|\Z|[\"”’)*_])")  # noqa: RUF001 - Chinese punctuation


@dataclass(frozen=True)
class Statement:
    """A sentence that states an answer, or says something about one.

    Attributes:
        at: index of its first decisive character.
        start: start of what it states.
        end: end of what it states; ``start`` if the answer is in the lines that follow.
        remark: what it says about an answer, or None if it states one.
        label: whether it is a label, as in "Answer: (A)".
    """

    at: int
    start: int
    end: int
    remark: Remark | None
    label: bool = False


def statements(text: str, stops: Sequence[int], start: int = 0) -> list[Statement]:
    """Return the statements in ``text`` from ``start``, in order.

    Args:
        text: contains the statements.
        stops: the ends of its sentences; see :class:`jobs.document.Document`.
        start: what is before it is not read.
    """
    ends = list(stops)
    matches = sorted(_matches(text, start), key=lambda match: match.start())
    gathered: dict[int, Statement] = {}
    for match in matches[-_MOST:]:
        statement = _statement(text, ends, match)
        gathered[statement.start] = statement
    return sorted(gathered.values(), key=lambda statement: statement.at)


def _matches(text: str, start: int) -> Iterator[re.Match[str]]:
    for pattern in (_ENGLISH, _CHINESE, _CHOSEN, _PICKED, markup.LABEL):
        yield from pattern.finditer(text, start)


def _statement(text: str, stops: Sequence[int], match: re.Match[str]) -> Statement:
    if match.re is markup.LABEL:
        at, end = match.end(), _line_end(text, match.end())
        # A reason may follow a short answer.
        sentence = _LINE_END.search(text, at, min(end, at + _SHORT))
        end = sentence.end() if sentence else end
        return Statement(match.start(), at, end, about(text[at:end]), label=True)
    begin = _sentence_start(text, stops, match.start())
    before = text[begin : match.start()]
    letter = match.groupdict().get("letter")
    if letter is not None:
        supposed = Remark.NEUTRAL if _HYPOTHETICAL.search(before) else None
        return Statement(match.start(), match.start("letter"), match.end("letter"), supposed)
    start = match.end()
    end = _sentence_end(text, stops, start)
    stated = text[start:end]
    if (reason := _REASON.search(stated)) and stated[: reason.start()].strip(" *,，"):  # noqa: RUF001 - Chinese punctuation
        stated = stated[: reason.start()]
    if _HYPOTHETICAL.search(before) or _OTHER.search(before) or _DOUBT.search(text[start:end]):
        remark: Remark | None = Remark.NEUTRAL
    else:
        remark = about(stated)
        if match.groupdict().get("negated"):
            remark = Remark.DENIES if remark is Remark.AFFIRMS else Remark.NEUTRAL
    return Statement(match.start(), start, start + len(stated), remark)


def about(stated: str) -> Remark | None:
    """Return what is said about an answer, or None if ``stated``, the end of "the answer is …", is an answer."""
    bare = stated.strip()
    plain = bare.lstrip("*_ \"'“‘,，")  # noqa: RUF001 - quotation marks
    if _EMPHASIZED.match(bare) or _NO_REMARK.match(plain):
        return None
    for remark, pattern in _ABOUT:
        if pattern.match(plain):
            return remark
    return None


def _sentence_start(text: str, stops: Sequence[int], at: int) -> int:
    index = bisect.bisect_right(stops, at)
    stop = stops[index - 1] if index else 0
    reach = max(0, at - _REACH)
    return max(stop, text.rfind("\n", reach, at) + 1, reach)


def _sentence_end(text: str, stops: Sequence[int], at: int) -> int:
    line = _line_end(text, at)
    index = bisect.bisect_right(stops, at)
    if index < len(stops) and stops[index] <= line:
        return stops[index]
    # A list has no sentences.
    cut = _LINE_END.search(text, at, line)
    return cut.end() if cut else line


def _line_end(text: str, at: int) -> int:
    reach = min(len(text), at + _REACH)
    end = text.find("\n", at, reach)
    return reach if end < 0 else end
