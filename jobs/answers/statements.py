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
    r"(?:答案|正确的?选项|正確的?選項|(?:最终|最后|所以|因此)的?结果)(?:就|应该|應該|应当|应|應|也|便|即|可能|只能|只会|当然|显然|确实|仍然|仍|还|還|都|最终|因此|因而|会|會|将|一定|肯定"
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
#: The correct option before the words: "B is the correct answer", "option B is correct".
_REVERSED = re.compile(
    r"(?:\b(?P<named>(?:option|choice|answer)[ ])[*(]{0,3}|(?:^|(?<=[\s(*]))[*(]{0,3})"
    r"(?P<letter>(?-i:[A-Z])(?=[)* ])|(?<=[ *])\d{1,9}(?=[* ]))[)*]{0,4}+[ ]is[ ](?:therefore[ ]|thus[ ]|clearly[ ])?"
    r"(?:the[ ](?:correct|right|best|only correct)[ ](?:answer|option|choice)"
    r"|(?(named)(?:the[ ])?(?:correct|right)(?![ ][a-z])|\Z\A))",
    re.IGNORECASE | re.MULTILINE,
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
    r"(?:(?:[a-z]{2,15}ly|very|quite|in fact|indeed|both|all|also|still|almost|most)[ ]){0,3}"
    r"(?:correct|right|true|valid|confirmed|verified|consistent|accurate|fine|sound|reasonable"
    r"|plausible|justified|supported"
    r"|validated|well[- ]supported|ok|okay|unchanged|the same|as (?:before|i said)|unlikely to change)"
)
_AFFIRMING_CJK = (
    r"(?:完全|非常|确实|都|仍然)?(?:正确|正確|对的|對的|对(?=\W|\Z)|没有?错误?|沒有?錯誤?"
    r"|没问题|没有问题|无误|無誤|准确|合理|一致|可靠|成立|吻合|可信)"
)
_DENYING = (
    r"(?:(?:[a-z]{2,15}ly|very|quite|in fact|also|still|almost|most)[ ]){0,3}"
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
    r"(?:clearly|important|necessary"
    r"|supposed|being|been"
    r"|that|what|where|how|why|whether|since|if|not|n['\u2019]t|never|either|one of"
    r"|some(?:where|thing)|somewhat|different|another|likely to|going to|incomplete|missing|expected"
    r"|required|requested|asked"
    r"|known|unknown|unsure|hidden|close|meant|intended|considered|needed"
    r"|to (?:be|find|determine|see|check|look|count|use|identify)"
    r"|in (?:the )?(?:image|text|question|options|list|form|format|terms)"
    r"|as (?:shown|stated|given|above|below|described|follows|i|we|it)|already|so|my|your|also|something"
    r"|(?:more|less)(?! than)|this|it|we|i"
    r"|among|not listed|up (?:to|for)|there|here|boxed|the (?:one|number|value|option|same|correct|right"
    r"|result|answer) (?:that|which|we|i|in|from|of the (?:question|options)))"
)
#: How something is said about an answer: clearly, not, almost certainly.
_MANNER = (
    r"(?:(?:[a-z]{2,15}ly|already|quite|very|pretty|rather|most|almost|still|not|just|now|also|even|well|right|self|then"
    r"|therefore|often|too|n['\u2019]t)[ -]){0,3}+"
)
#: What follows a description of an answer: "found in the table"; not what follows that of a thing: "found objects".
_ON = (
    r"(?=\W*\Z|[ ]?[,;:.!?)*]|[ ](?:in|on|at|by|as|from|to|with|within|under|below|above|beneath|behind|next|near|here"
    r"|there|for|of|that|because|since|if|when|where|and|but|or|so|right|directly|clearly|enough|using|through|via|after"
    r"|before|only|later|earlier|explicitly)\b)"
)
_PLACES = (
    r"(?:text|caption|chart|legend|question|options?|title|passage|paragraph|footnote|description|table|graph|diagram"
    r"|figure|image|picture|photo|photograph|prompt|problem|list|data|section|sentence|article|context|choices|statement"
    r"|instructions?)"
)
_DESCRIBED = (
    rf"{_MANNER}(?:"
    # Described: visible, shown, written on the sign.
    r"(?:visible|readable|legible|illegible|determinable|identifiable|recogni[sz]able|available|accessible|shown|given|found"
    r"|written|printed|stated|marked|provided|listed|labell?ed|presented|displayed|depicted|illustrated|explained"
    r"|discussed|described|mentioned|highlighted|circled|underlined|indicated|implied|suggested|included|contained"
    r"|located|hidden|buried|obscured|derived|determined|obtained|computed|calculated|reached|inferred|deduced|read"
    r"|supported|based|known|seen|spelled out|revealed|repeated|encoded|embedded"
    # Judged: obvious, trivial.
    r"|clear|unclear|obvious|evident|apparent|straightforward|trivial|debatable|arguable|disputed|contested|subjective"
    r"|objective|ambiguous|uncertain|plausible|surprising|interesting|intuitive|simple|easy|hard|difficult|tricky"
    r"|complicated|complex|dependent|contingent|unique|important|impossible|possible|indeterminate(?=[ ])"
    rf"|inconclusive|questionable|unambiguous|unsurprising|noticeable){_ON}"
    r"|(?:open|subject|left|related|similar|close|limited) (?:to|up)\b|a matter of\b|out of\b(?= (?:reach|scope))"
    # Where: in the caption, on the next page, below.
    rf"|(?:in|within|inside|from|at)[ ](?:the|this|that|its|one of the|a|plain)[ ]?(?:[a-z]{{3,10}}[ ])?"
    rf"(?:{_PLACES}(?![ ](?:on|to) the (?:left|right))|sight\b)|on (?:the )?(?:[a-z]{{3,10}} )?page\b"
    r"|(?:in|of) the (?:form|format|shape)\b|in plain sight\b"
    rf"|(?:above|below|beneath|underneath)(?=\W*\Z|[ ]?[,;:]|[ ](?:in|on)\b|[ ](?:the|this) {_PLACES}\b))"
    r"|too [a-z]{3,12}(?=\W*\Z| to\b| for\b)"
)
_NEUTRAL_CJK = (
    r"(?:很|非常|十分|已经?|比较|相当|直接|清楚地?|清晰地?|明确地?|明显地?|被|都|也|还|仍然?)*"
    r"(?:显而易见|不言|简单|容易|清晰|可见|可以|模糊|含糊|写在|印在|写|标在|标注|标明|显示|隐藏|藏在|有争议|无法|难以|见仁见智|主观|呼之欲出"
    r"|否(?=正|对|合|是|有|为|准|一)|什么|多少|哪|几(?!何)|根据|基于|通过|由|给出|给定|给的|明确|清楚|显然|明显|已知|未知|确定|不确定|唯一(?!性)|怎|如何"
    r"|不是|非(?!洲)|不|没有|没|我|你|这|那|它|要|需要|能|在.{0,8}(?:中|表|图)|从|按|因为|由于|如[下上]|见[下上])"
)
_ABOUT = (
    (Remark.DENIES, re.compile(rf"(?:{_DENYING}){_WORD_END}|{_DENYING_CJK}", re.IGNORECASE)),
    (Remark.AFFIRMS, re.compile(rf"(?:{_AFFIRMING}){_WORD_END}|{_AFFIRMING_CJK}", re.IGNORECASE)),
    (
        Remark.NEUTRAL,
        re.compile(rf"(?:{_NEUTRAL}){_WORD_END}|{_DESCRIBED}|{_NEUTRAL_CJK}", re.IGNORECASE),
    ),
)
#: Answers that begin like a remark: "right side", "the same color"; also true and false, which answer many questions.
_NO_REMARK = re.compile(
    r"right[ -](?:side|hand|turn|arrow|one|angle|triangle|of|and|to)\b|the same (?:colou?r"
    r"|size|shape|number|as)\b"
    r"|(?:true|false)\W*\Z|off\W*\Z|one of (?:the )?(?:two|three)\b"
    r"|(?:不锈钢|没有|不是|不|不能|不会|不可以|可以|能|非洲)\W*\Z",
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
#: Abbreviations before a name and before a number, and what follows them.
_ABBREVIATION = re.compile(
    r"\b(?:(?P<name>Dr|Mr|Mrs|Ms|St|Prof|Mt|Gen|Lt|Capt|Sgt|Rev)|(?P<number>No|Nos|Fig|Eq|ft|vol|pp?|approx|ca))\.\Z"
)
_ABBREVIATED = {"name": re.compile(r"[ ][A-Z][\w.]"), "number": re.compile(r"[ ]\d")}


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
    for pattern in (_ENGLISH, _CHINESE, _CHOSEN, _PICKED, _REVERSED, markup.LABEL):
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
    for index in range(bisect.bisect_right(stops, at), len(stops)):
        if stops[index] > line:
            break
        if not _abbreviates(text, at, stops[index]):
            return stops[index]
    # A list has no sentences.
    for cut in _LINE_END.finditer(text, at, line):
        if not _abbreviates(text, at, cut.end()):
            return cut.end()
    return line


def _abbreviates(text: str, at: int, end: int) -> bool:
    """Whether the period before ``end`` is that of an abbreviation: St. Louis, No. 6."""
    before = _ABBREVIATION.search(text, max(at, end - 8), end)
    return before is not None and _ABBREVIATED[before.lastgroup or ""].match(text, end) is not None


def _line_end(text: str, at: int) -> int:
    reach = min(len(text), at + _REACH)
    end = text.find("\n", at, reach)
    return reach if end < 0 else end
