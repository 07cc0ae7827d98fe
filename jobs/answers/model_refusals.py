"""Whether an output refuses to answer, in English or Chinese. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: A refusal says little else.
_MOST = 500
_MOST_SENTENCES = 5
# Every pattern is bounded.
_UNABLE = (
    r"(?:do(?: not|n['\u2019]?t) have the (?:ability|capability) to|can ?not|can['\u2019]?t"
    r"|could ?n['\u2019]?t|am not able to|['\u2019]m not able to|am unable to"
    r"|['\u2019]m unable to|will not|won['\u2019]?t|must decline"
    r"|have to decline|decline|do not feel comfortable|['\u2019]m not comfortable"
    r"|am not allowed to|['\u2019]m not allowed to|am not programmed to)"
)
_ACTS = (
    r"(?:assist|help|comply|fulfil+|provide|answer|respond|discuss|engage|support|participate"
    r"|proceed|continue|do (?:that|this)|comment"
    r"|share|generate|create|produce|offer|give|identify|recognize|complete|process|express"
    r"|talk about|address|accommodate|decline|visually|perceive|with)"
)
_ENGLISH = re.compile(
    r"\W*(?:(?:i(?:['\u2019]m| am)(?: very| so| truly)? (?:sorry|afraid)|sorry|(?:my )?apologies"
    r"|i apologi[sz]e|unfortunately)\b[^.!?\n]{0,60}?"
    rf"|as an? (?:ai|artificial)\b[^.!?\n]{{0,60}}?|)"
    # "Sorry, I do not know it. I cannot help you."
    rf"(?:\bi (?:do not|don['\u2019]?t) know\b[^.!?\n]{{0,60}}[.!][ ]?)?\b(?:i|we"
    rf"|it)?[ ]?{_UNABLE}[^.!?\n]{{0,40}}?\b{_ACTS}\b",
    re.IGNORECASE,
)
_CHINESE = re.compile(
    r"\W*(?:(?:非常|很|十分|真)?(?:抱歉|对不起|遗憾|不好意思)|作为(?:一个|一名)?(?:人工智能|AI|语言模型))?[^。！？\n]{0,30}?"  # noqa: RUF001 - Chinese punctuation
    r"(?:无法|不能|没办法|没有办法|不会|不便|不可以|拒绝)[^。！？\n]{0,20}?"  # noqa: RUF001 - same
    r"(?:帮助|协助|提供|回答|满足|完成|处理|讨论|识别|继续|回应|参与|给出|生成|您的|你的|这个问题|该请求|此请求)",
    re.IGNORECASE,
)
#: The model says that it gets no image at all: "I cannot view images", but not "I cannot see the image clearly".
_IMAGES = (
    r"(?:the|this|that|any|an|your|actual|images?|uploaded|attached|provided|shared"
    r"|linked|external|visual|or|of)[ ]"
)
_SIGHTLESS = re.compile(
    r"(?:\A\W*|[,;][ ]|\b(?:and|but|so|that|model|assistant|ai|sorry|unfortunately)[ ])i\b[^.!?\n]{0,30}?"
    r"(?:\bcan ?not|n['\u2019]t|\bnot|\bunable|\black|\bno|\bwithout)\b[^.!?\n]{0,40}?\b"
    r"(?:view|see|access(?:[ ]to)?|open|perceive|process|analy[sz]e|interpret|display|load|receive|examine"
    r"|visual|look at)"
    rf"(?:ing)?[ ](?:(?:or|and) [a-z]{{1,12}}[ ])?(?:{_IMAGES}){{0,5}}"
    r"(?:images?|pictures?|photos?(?:graphs?)?|attachments?|files?|visual (?:content|input|data|information)"
    r"|capabilit(?:y|ies))"
    r"(?:[ ](?:directly|here|at (?:the|this) (?:moment|time)|right now|yet|or \w{1,12}"
    r"|in (?:this|your|our|the) (?:chat|conversation|message|prompt|question|request)))?"
    r"(?=[.,;!]|[ ](?:and|so|as|but|because|since|that (?:you|was|were)|you|attached|provided|uploaded)\b|\s*\Z)"
    r"|\bno (?:image|picture|photo)s? (?:(?:is|was|were|has been|have been) )?"
    r"(?:attached|provided|uploaded|included|shared)\b"
    r"|there (?:is|was|seems to be) no (?:image|picture|photo)(?=[.,])",
    re.IGNORECASE,
)
_SIGHTLESS_CHINESE = re.compile(
    r"(?:看不到|看不见|收不到|打不开|(?:无法|不能|没办法|没有办法|不具备|没有|未能)(?:直接|实际|真正)?"
    r"(?:查看|看到|看见|访问|打开|浏览|识别|感知|处理|分析|读取|显示|接收|收到|观察|获取)(?:或\w{2})?)(?:到|和处理|任何|您|你|所|提供|上传|发送|分享|的|这张|该|此|具体|实际){0,6}"
    r"(?:图片|图像|照片|视觉(?:内容|信息)|附件|图)(?:的能力|内容)?(?=[，。,.；！]|因|所以|\Z)"  # noqa: RUF001 - Chinese punctuation
    r"|(?:没有|未)(?:提供|上传|附上|附带)(?:任何)?(?:图片|图像|照片)"
)
#: The reason is the image, not the request: an answer that the question cannot be answered.
_SIGHT = re.compile(
    r"\b(?:image|picture|photo|figure|diagram|text|blurr\w*|unclear|visible|legible|resolution"
    r"|see|read|determine|tell|count|given|"
    r"information (?:given|provided)|options?)\b|图|照片|模糊|看不|清晰|分辨率|题目|条件|信息不足",
    re.IGNORECASE,
)
#: Persons in an image are a usual reason to refuse.
_PERSONS = re.compile(
    r"\b(?:identif\w+|recogni[sz]\w+|who)\b[^.!?\n]{0,60}\b(?:person|people|individuals?|someone"
    r"|faces?)\b|识别[^。\n]{0,20}(?:人|身份)"
    r"|\b(?:help|assist)\b[^.!?\n]{0,30}\b(?:with|you)\b|(?:request|请求)",
    re.IGNORECASE,
)
_CONTINUES = re.compile(
    r"\b(?:however(?!,? i can (?:suggest|recommend|assist|help|try|refer))|but i can(?! ?not|['\u2019]?t)"
    r"|here (?:is|are)|the answer (?:is|would|should)|答案(?:是|为)|instead,? i can (?:tell|describe|say)"
    r"|based on (?!(?:a |the |your |any |textual |written |text[- ]based )*"
    r"(?:input|descriptions?|text|prompts?|question)\b))\b|但是?我可以|不过|以下是",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?。！？]+(?=\s|\Z|[^\x00-\x7f])")  # noqa: RUF001 - Chinese punctuation


def of(texts: Sequence[str]) -> str | None:
    """Return the first text if there is one and all of them are refusals, else None."""
    return texts[0].strip() if texts and all(map(refuses, texts)) else None


def refuses(text: str) -> bool:
    """Whether the whole of ``text`` is a refusal to answer: a few sentences, of which the first one refuses.

    "I cannot read the plate in the image" is an answer, and not a refusal.
    """
    bare = text.strip()
    if not bare or len(bare) > _MOST or len(_SENTENCE.findall(bare)) > _MOST_SENTENCES:
        return False
    if "\\boxed" in bare or _CONTINUES.search(bare):
        return False
    first = _SENTENCE.split(bare, 1)[0] + "."
    if _SIGHTLESS.search(first) or _SIGHTLESS_CHINESE.search(first):
        return True
    refusal = _ENGLISH.match(bare) or _CHINESE.match(bare)
    if refusal is None:
        return False
    return _SIGHT.search(bare) is None or _PERSONS.search(bare) is not None
