"""Remarks about an answer: "the answer is correct" affirms an answer and states none. Pure.

Two tables, for English and Chinese. Every pattern takes linear time: its quantifiers are bounded or possessive.
"""

from __future__ import annotations

import re

from jobs.answers.statements import Remark

#: The most characters of a sentence that is read.
_MAX_SENTENCE = 400

# English.

_RIGHT = (
    r"(?:(?:absolutely|perfectly|completely|entirely|fully|quite|all|most likely|probably)\s)?"
    r"(?:correct|right|accurate|valid|confirmed|verified|sound|consistent|unchanged|justified|exact|precise|true"
    r"|the same|as before|ok(?:ay)?|fine|good|supported|reliable|certain|settled|in order)"
)
_WRONG = (
    r"(?:(?:completely|entirely|clearly|probably|likely|actually)\s)?"
    r"(?:wrong|incorrect|inaccurate|mistaken|false|invalid|flawed|off|a mistake|an error|in error|erroneous|untrue"
    r"|doubtful|questionable|unreliable|inconsistent"
    r"|(?:only\s)?(?:almost|nearly|partially|partly|half|far from|anything but)\s"
    r"(?:correct|right|accurate|true|certain))"
)
#: What a remark is about: my answer, the previous count, that.
_ABOUT = (
    r"(?:(?:(?:the|my|this|that|these|those|our|your|its|both|all)\s){0,2}"
    r"(?:(?:first|previous|initial|original|earlier|final|above|given|stated|former|last|second|own|proposed)\s){0,2}"
    r"(?:answer|result|count|conclusion|response|solution|value|choice|reading|statement|claim|number|total|observation"
    r"|description|reasoning|analysis|identification|calculation|assessment|option|interpretation|estimate)s?"
    r"(?:\s(?:\(?[\w.,°%$]{1,20}\)?|of\s[\w.,°%$]{1,20}(?:\s\w{1,20})?|above|before|i gave|given|from before"
    r"|to (?:the|this|your) question)){0,2}"
    r"|it|that|this|everything|all|i|which)"
)
_ADVERB = (
    r"(?:\s(?:still|indeed|also|therefore|thus|definitely|certainly|in fact|actually|really|hence|now|clearly|both"
    r"|all|so)){0,3}"
)
_IS = (
    r"(?:\s(?:is|was|are|were|am|seems|appears|looks|remains|stays|remain|has been|have been|proves|turns out"
    r"|(?:should|must) be)(?:\sto be)?|[\u2019']s|[\u2019']m|[\u2019']re)"
)
_NOT = r"(?P<not>\s(?:not|never|no longer|hardly)|n[\u2019']t)?"
_NEGATED = (
    r"(?P<not>(?:\s(?:does|do|did|can|could|will|is|has))?(?:n[\u2019']t|not|\snot|\sno longer))?"
)
#: Where a remark may end: what follows must not go on with a noun ("the right side").
_END = (
    r"(?=\s*(?:[,;:)\u2013\u2014-]|\Z|\b(?:and|because|since|as|for|that|which|with|in|after|when|given|here|then|now"
    r"|again|about|so|there|too|to|on|by|from|based|but|overall)\b))"
)
_ENGLISH = (
    # The answer is correct, my first count was wrong, that's right.
    re.compile(
        rf"\b{_ABOUT}{_ADVERB}{_IS}{_NOT}{_ADVERB}\s(?:(?P<right>{_RIGHT})|(?P<wrong>{_WRONG})){_END}"
    ),
    # My answer stands, that matches, it does not hold.
    re.compile(
        rf"\b{_ABOUT}{_ADVERB}{_NEGATED}{_ADVERB}\s(?P<right>stands?|holds?|held|match(?:es)?|agrees?"
        r"|fits?|checks? out|(?:is|are) confirmed|remains?|makes? sense|adds? up)\b"
    ),
    # I confirm, this confirms, we can confirm, I stand by my answer, I cannot confirm it.
    re.compile(
        r"\b(?:i|we|this|that|which|it)(?:\s(?:can|have|also|now|therefore|do|still|has)){0,3}"
        r"(?P<not>\s?not|n[\u2019']t)?(?:\s(?:fully|really|now)){0,1}\s"
        r"(?P<right>confirm(?:s|ed)?|verif(?:y|ies|ied)|stand by|keep|agree with|support(?:s)?|back(?:s)? up|uphold)\b"
    ),
    # Confirmed. Correct. Yes, correct. Right.
    re.compile(
        rf"\A(?:(?:yes|so|ok(?:ay)?|indeed|great|good|therefore|thus|no)[,:]?\s){{0,2}}(?P<not>not\s)?"
        rf"(?:(?P<right>(?:{_RIGHT}|verified|correctly \w{{1,20}}|no changes?(?: needed| necessary)?"
        r"|nothing to correct))"
        rf"|(?P<wrong>{_WRONG})){_END}"
    ),
    # No mistakes, nothing is wrong, there is no error.
    re.compile(
        r"\b(?P<right>(?:no|without(?: any)?|not find any|found no)"
        r" (?:mistakes?|errors?|discrepanc(?:y|ies)|contradictions?|changes?)"
        r"|nothing (?:is|was|seems) (?:wrong|incorrect|missing))\b"
    ),
    # I did not make any mistakes.
    re.compile(
        r"\b(?P<right>i\s(?:did not|didn[\u2019']t|have not|haven[\u2019']t|never)\s(?:make|made)\s(?:a|any)"
        r"\s(?:mistake|error)s?)\b"
    ),
    # I made a mistake, there is an error.
    re.compile(
        r"\b(?:i|there)\s(?:have\s|must have\s|had\s)?(?:made|is|was|misread|miscounted|overlooked)\b"
        r"(?P<wrong>\s(?:a|an|one)\s(?:\w{1,12}\s)?(?:mistake|error|miscount))\b"
    ),
    # The answer may be wrong, this could be a mistake.
    re.compile(
        rf"\b{_ABOUT}\s(?:may|might|could|must)(?:\swell)?\s(?:be|have been)\s(?P<wrong>{_WRONG}){_END}"
    ),
)
#: Words before a remark that make it a condition, a plan, or a question.
_OPEN_ENGLISH = re.compile(
    r"\b(?:if|whether|unless|suppose|supposing|assum(?:e|ing)|make sure|making sure|ensure|let me|let[\u2019']s"
    r"|to (?:check|verify|see|confirm|be sure)|(?:need|have|going|want|try|asked) to|(?:should|must)(?!\sbe\b)"
    r"|wonder|hope|not sure|doubt|see that|until|is (?:that|it|this|the answer|my answer)|are (?:they|these))\b"
)

#: Words before the subject of a remark that reverse it: **neither** answer is correct, **none of** this is correct.
_NONE = re.compile(r"(?:\A|\s)(?:neither(?: of)?|none of|no)\s(?:the\s)?\Z")
#: What takes back that something is correct: **but wrong** overall.
_BUT = re.compile(
    r"\b(?:but|however|except)\b[^.]{0,80}?\b"
    r"(?:wrong|incorrect|mistaken|inaccurate|missed|overlooked|should be|forgot)\b"
)

# Chinese.

_RIGHT_CHINESE = (
    r"(?:完全|确实|仍然|依然|应该|应当|都|也|还|就|的确|基本){0,3}(?:是)?(?:完全|确实)?"
    r"(?:正确(?:无误|的)?|对的|没错|无误|没有(?:错误?|问题|误)|没问题|准确(?:无误|的)?|成立|不变|一致(?:的)?|吻合|相符"
    r"|可靠(?:的)?|合理(?:的)?|属实)"
)
_WRONG_CHINESE = (
    r"(?:完全|确实|应该|可能|都|也|就|的确){0,3}(?:是)?"
    r"(?:错误(?:的)?|错的|错了|不正确(?:的)?|不对(?:的)?|不准确(?:的)?|有误|有错(?:误)?|有问题|不成立|不一致|不符"
    r"|搞错(?:了|\Z)|数错(?:了|\Z)|弄错(?:了|\Z)|不可靠|(?:只有?)?一?部分是?(?:正确|对)的?)"
)
_ABOUT_CHINESE = (
    r"(?:答案|结果|结论|回答|判断|计数|数字|数量|选择|描述|观察|数目|总数|解答|分析|推理|读数|这|那|它|一切|我)(?:们)?"
    r"(?:[^\W不没非未无][.°%]?){0,8}?"
)
_CHINESE = (
    # 答案是正确的, 结果无误, 之前的判断是错误的.
    re.compile(
        rf"{_ABOUT_CHINESE}(?:(?P<not>并?(?:不是|没有?))?(?P<wrong>{_WRONG_CHINESE})|(?P<right>{_RIGHT_CHINESE}))"
    ),
    # 没错, 确认无误, 正确.
    re.compile(
        r"\A(?:所以|因此|那么|是的|对|嗯|经(?:过)?(?:核对|检查|复查|验证|确认)(?:后)?|综上|[\uff0c,\s]){0,4}"
        rf"(?:(?P<wrong>{_WRONG_CHINESE})|(?P<right>{_RIGHT_CHINESE}|确认(?:无误)?|核对无误|检查无误))"
        r"(?=[\uff0c,。\uff1b;\uff1a:\uff01!]|\Z)"
    ),
    # 我确认, 维持原来的答案, 没有遗漏.
    re.compile(
        r"(?P<not>(?:不能|无法|没法|难以)完?全?)?(?P<right>(?:可以|已|我)?确认(?:了)?(?:无误|答案|上述|之前|原来|我的|最初)|维持(?:原|我的|之前|不变)"
        r"|没有(?:发现)?(?:任何)?(?:错误|遗漏|问题)|(?:核对|检查|复查|验证)(?:后)?无误)"
    ),
)
#: The same as for English.
_OPEN_CHINESE = re.compile(
    r"如果|是否|假如|要是|是不是|对不对|确保|看看|检查一下|验证一下|核对一下|除非|假设|为了|需要|不确定|让"
)
_QUESTION = re.compile(r"[?\uff1f]\s*\Z|吗[。.]?\s*\Z")
#: Ends of sentences. A point between digits ends none.
_SENTENCE = re.compile(r"[^.!?。！？\n]*+(?:\.(?=\S)[^.!?。！？\n]*+)*+[.!?。！？\n]*+")  # noqa: RUF001 - full-width
_MARKUP = str.maketrans("", "", '*_`#>$"“”')


def remark(sentence: str) -> Remark | None:
    """Return what a sentence says about an answer, or None if it is no remark about one."""
    plain = " ".join(sentence.translate(_MARKUP)[:_MAX_SENTENCE].casefold().split())
    if not plain or _QUESTION.search(plain):
        return None
    plain = plain.rstrip(" .。!！")  # noqa: RUF001 - full-width
    for patterns, conditions in ((_ENGLISH, _OPEN_ENGLISH), (_CHINESE, _OPEN_CHINESE)):
        for pattern in patterns:
            match = pattern.search(plain)
            if match is None or conditions.search(plain, 0, match.start(match.lastgroup or 0)):
                continue
            groups = match.groupdict()
            affirms = groups.get("right") is not None
            if _NONE.search(plain[: match.start()]):
                affirms = not affirms
            if affirms and _BUT.search(plain, match.end()):
                return Remark.DENIES
            return Remark.AFFIRMS if affirms != bool(groups.get("not")) else Remark.DENIES
    return None


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``, without empty ones."""
    return [match[0].strip() for match in _SENTENCE.finditer(text) if match[0].strip()]
