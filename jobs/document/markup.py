r"""The regular expressions of markup: headings, boxes, and text commands such as ``\text``. Pure.

No other module has patterns of these. Each takes linear time for any text: its quantifiers are bounded or possessive.
A match depends on a bounded number of characters, so that a growing text can be read to the end once.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Headings of a final answer.

#: Characters of a line that decide whether it is a heading.
LINE = 240
#: Quotation marks, bullets, numbers: ``> ``, ``- ``, ``1. ``.
_LEAD = (
    r"[ \t>]{0,12}+(?:(?:[-*+•]|\d{1,2}[.)、])(?:[ \t]{1,4}+|(?<=、)))?+"
    r"(?:[^\w\s\x00-\x7f【】〖〗「」•、]{1,3}+[ \t]{1,4}+)?+"
)
#: What emphasizes a heading. A line without it is no heading.
_HASH = r"(?P<hash>\#{1,6}+)[ \t]{0,8}+"
_OPEN = r"(?:\*{1,3}+_?+|_\*{1,3}+|_{2,3}+|[【〖「\[]|\\(?:textbf|underline|(?:sub){0,2}section\*?|paragraph)\{)"
#: An emoji, a number or "Step 5:" before the words.
_ORNAMENT = (
    r"(?:[^\w\s\x00-\x7f【】〖〗「」]{1,3}+[ \t]{0,4}+)?+"
    r"(?:(?:step[ \t]{1,2}+\d{1,2}|第[\d一二三四五六七八九十]{1,3}步"
    r"|\d{1,2}(?=[.)、]))[ \t]{0,2}+[.):：、]?[ \t]{0,4}+)?+"  # noqa: RUF001 - full-width
    r"(?:(?:my|the|our|your|so|so[ \t]the)[ \t]{1,4}+)?+"
)
_WORDS = (
    r"(?:(?P<final>final[ \t\xa0]{1,8}+answers?|(?:最终|最後|最后|最終)(?:的)?(?:答案|回答|答复)|正确答案|正確答案)"
    r"|(?P<answer>(?:(?:correct|right|overall)[ \t]{1,4}+)?answers?|答案|回答|答|(?:最终|最後)?(?:结论|結論))"
    r"|(?P<conclusion>(?:final[ \t]{1,4}+)?conclusions?))(?![A-Za-z])"
)
#: A remark about the heading; "(A)" is an answer.
_PARENTHESIS = r"(?:[ \t]{0,4}+[(（](?!\w[)）])[^()（）\n]{1,60}+[)）])?+"  # noqa: RUF001 - full-width
_DASH = r"[-\u2013\u2014](?=[ \t*_])"
_COLON = (
    rf"[ \t]{{0,4}}+(?P<colon>(?:\bis\b|\bare\b|是|为|為)?[ \t]{{0,4}}+(?:[:：]|{_DASH})"  # noqa: RUF001 - full-width
    r"|\bis\b|\bare\b|是|为|為)?+[ \t]{0,4}+"
)
_COLON_INSIDE, _COLON_AFTER = (_COLON.replace("colon", name) for name in ("inside", "after"))
_CLOSE = r"(?P<close>_?+\*{1,3}+_?+|_{2,3}+|[】〗」\]]|\})?+"
_HEADING = re.compile(
    rf"{_LEAD}(?:{_HASH}(?P<both>{_OPEN})?+|(?P<open>{_OPEN}))[ \t]{{0,4}}+{_ORNAMENT}(?P<inner>{_OPEN})?+{_WORDS}"
    rf"{_PARENTHESIS}{_COLON_INSIDE}{_CLOSE}(?(inside)|{_PARENTHESIS})"
    rf"(?P<hashes>[ \t]{{0,4}}+\#{{1,6}}+)?+{_COLON_AFTER}",
    re.IGNORECASE,
)
#: The colons that introduce an answer.
COLONS = (":", "：")  # noqa: RUF001 - a full-width colon
_INTRODUCING = (*COLONS, "-", "\u2013", "\u2014")
#: What an answer begins with after a heading without a colon: a formula, a number, a letter, bold text.
_VALUE = re.compile(
    r"\\(?:boxed|fbox|\(|\[|text|frac|d?frac)|\$|[-+\u2212]?\d|\*\*|`|[(（][A-Za-z0-9][)）]"  # noqa: RUF001 - full-width
    r"|[A-Za-z](?![A-Za-z'\u2019])"
)


#: A heading inside of a line: between the end of a sentence and a formula.
INLINE_HEADING = (
    r"(?:(?<=[.!?:。！？：][ ]\*)|(?<=[。！？：]\*))"  # noqa: RUF001 - Chinese punctuation
    r"\*(?i:final[ ]answers?|最终答案|最終答案|答案)[ ]?[:：]?\*\*[:：]?[ ]{0,4}+"  # noqa: RUF001 - Chinese punctuation
    r"(?=\\(?:boxed|fbox|\[|\()|\$)"
)


#: The emphasis of such a heading does not belong to the sentence before it.
NO_HEADING = r"(?!\*\*(?:最终答案|最終答案|答案))"


class HeadingMatch(NamedTuple):
    """A heading at the beginning of a line: see :class:`jobs.document.parts.Heading`."""

    content: int
    rank: int
    level: int


def heading(text: str, at: int, end: int) -> HeadingMatch | None:
    """Return the heading of a final answer that the line from ``at`` is or begins with, or None.

    Args:
        text: contains the line.
        at: the line's start.
        end: the line's end, or ``at + LINE`` for a longer line.
    """
    match = _HEADING.match(text, at, end)
    if match is None:
        return None
    rest = match.end()
    empty = not text[rest:end].strip(" \t\r#*_")
    opened, closed = match["open"] or match["both"] or match["inner"], match["close"]
    introduced = match["after"] or match["inside"]
    if opened and not closed:
        # Markup that goes on: "**Final Answer: 6**". "**Answer the question**" is no heading.
        heads = introduced is not None and (
            empty or introduced.endswith(_INTRODUCING) or not introduced.isascii()
        )
    elif introduced is not None and introduced.endswith(_INTRODUCING):
        heads = True
    elif introduced is not None:
        # "**Final answer** is 6" heads an answer, "**Final answer** is what we need" does not.
        heads = empty or _VALUE.match(text, rest) is not None or not introduced.isascii()
    else:
        heads = (
            empty
            or (closed is not None and closed in "】〗」")
            or _VALUE.match(text, rest) is not None
        )
    if not heads:
        return None
    rank = 2 if match["final"] else 1 if match["answer"] else 0
    return HeadingMatch(rest, rank, len(match["hash"] or ""))


#: A line that begins with the name of what follows: "Answer: (A)".
LABEL = re.compile(
    r"^[ \t>]{0,8}+(?:[-*+•][ \t]{1,4}+)?+(?:so |therefore, |thus, )?(?:the |my )?(?:(?:final"
    r"|correct|right|best)[ \t]{1,4}+){0,2}+"
    r"(?:answers?|ans\.?|答案|最终答案|最后答案|正确答案|最終答案|答)[ \t]{0,4}+"
    r"(?:\([^()\n]{1,40}\)[ \t]{0,4}+)?+[:：][ \t]{0,8}+",  # noqa: RUF001 - Chinese punctuation
    re.IGNORECASE | re.MULTILINE,
)
#: Another title: a Markdown heading, or a line in bold.
TITLE = re.compile(
    r" {0,3}+\#{1,6}+[ \t][^\n]*+|[ \t]*+(?:\d{1,3}[.)] )?+(?:\*\*[^*\n]++\*\*"
    r"|__[^_\n]++__)[:：]?[ \t\r]*+"  # noqa: RUF001 - a full-width colon
)
#: A title of what follows an answer: an explanation, a check.
AFTERWORD = re.compile(
    r"[\W_]*+(?:explanations?|reason(?:ing)?|justification|notes?|verification|check(?:ing)?"
    r"|double[- ]check|summary|why"
    r"|steps?[ \t]by[ \t]step|solution|working"
    r"|解析|解释|解釋|说明|說明|理由|验证|驗證|检验|检查|注|备注|分析|推理)(?![A-Za-z])",
    re.IGNORECASE,
)
#: A line that begins such an explanation without a title.
EXPLANATION = re.compile(
    r"\n[ \t]*+(?:【(?:解析|详解|解释|说明|分析|理由|思路|点评)】"
    r"|(?:\*\*)?(?:Explanation|Reasoning|Reason|Justification|解析|解释|理由)(?:\*\*)?[:：])"  # noqa: RUF001 - a full-width colon
)
#: The tags of sister models.
THOUGHT_END = "</think>"
ANSWER_TAG = re.compile(
    r"<(?P<closing>/?)(?P<name>(?:final[ _-]?)?answer|conclusion)>"
    r"|<\|(?:begin|(?P<end>end))_of_box\|>",
    re.IGNORECASE,
)
#: A tag that the text ends inside of.
OPEN_TAG = re.compile(r"</[A-Za-z_]{0,12}+\Z")

# Options.

#: A line that is one of several options: (B), **B.**, (A) a desk, A. desk; not "(A) is wrong" or "A lamp".
OPTION = re.compile(
    r"(?:option |choice |选项?)?(?:\\\()?+[ \t>*_$`(（\[【{]{0,8}+(?:option |choice )?[(（\[【]?"  # noqa: RUF001 - full-width
    r"(?P<letter>(?-i:[A-Z])|[a-z](?=[)）]))"  # noqa: RUF001 - full-width
    r"(?:[ \t)）\]】}.。:：*_$`]{0,8}+(?:\\\))?+\Z"  # noqa: RUF001 - full-width
    r"|(?:[)）\]】]{1,2}+[.:：*_]{0,4}+|\*{0,3}+[.:：、]\*{0,3}+(?![A-Za-z\d]))[ \t]{0,4}+"  # noqa: RUF001 - full-width
    r"(?!(?:is|are|was|were|has|have|does|do|can|could|would|will|should|seems?|shows?|because|since|and|or|but|not)\b"
    r"|不|是|和|因|也|错|对)(?P<text>[^\n]{1,100}?)\Z)",
    re.IGNORECASE,
)
#: An option in brackets after the last sentence of a line: "The lamp is near. (A)".
OPTION_AFTER = re.compile(
    r"(?:(?<=[.!?] )|(?<=[。！？]))[*_]{0,3}+(?P<option>[(（][A-Z][)）][^()（）.!?。！？\n]{0,40}+\.?+[*_]{0,3}+)\Z"  # noqa: RUF001 - full-width
)

# Boxes.

#: A token of the braces of a text. Escaped characters, including braces, do not count.
BRACES = re.compile(
    r"[\\{}](?:(?<=\{)(?P<open>)|(?<=\})(?P<close>)"
    r"|(?P<box>(?<!\\\\)\\{0,7}+(?:boxed|fbox|framebox)\s{0,20}+\{)"
    r"|(?P<bare>(?<!\\\\)\\{0,7}+(?:boxed|fbox)(?:[ \t]{1,4}+|(?=\d))(?P<word>[-+]?\w{1,40}+(?:[.,/:]\d{1,20}+){0,3}+))"
    r"|.)",
    re.DOTALL,
)
#: The beginning of a box, closed or not.
BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
#: A text that ends inside of the command of a box, or in delimiters that hold nothing.
UNFINISHED = re.compile(
    r"(?:\\(?:b(?:o(?:x(?:e(?:d(?:[ \t]*+\{?)?)?)?)?)?)?|\\(?:f(?:b(?:o(?:x\{?)?)?)?)?)[^\S\n]*+\Z"
)
#: What stands around a box in a formula of its own: these delimiters go with the box.
BEFORE_BOX = re.compile(r"(?:\\\(|\\\[|\$\$?|\*\*)\s{0,20}+\Z")
AFTER_BOX = re.compile(r"\s{0,20}+(?P<stop>[.,;]?)\s{0,4}+(?:\\\)|\\\]|\$\$?|\*\*)")

# Typesetting: commands that change how a text appears and not what it says.

#: Commands whose argument is text or a part of the formula in another font: ``\text{km}``, ``\operatorname{red}``.
TEXT_COMMANDS = frozenset(
    (
        *("text", "textbf", "textit", "texttt", "textrm", "textsf", "textsc", "textsl", "textup"),
        *("textmd", "textnormal", "mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathnormal"),
        *("operatorname", "operatorname*", "mbox", "hbox", "emph", "underline", "boldsymbol", "bm"),
        *("boxed", "fbox", "framebox", "pmb", "ce"),
    )
)
#: Commands that select a font for the rest of a group: ``{\bf red}``.
FONT_COMMANDS = frozenset(("bf", "rm", "it", "tt", "sf", "em", "bfseries", "itshape"))
#: Commands without a visible result of their own.
EMPTY_COMMANDS = frozenset(
    (
        *("left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "middle"),
        *("displaystyle", "textstyle", "limits", "nolimits", "noindent", "centering", "null"),
        *("small", "large", "Large", "LARGE", "huge", "normalsize"),
    )
)
#: Commands that are a space.
SPACE_COMMANDS = frozenset(
    ("quad", "qquad", "enspace", "thinspace", "space", "enskip", "nobreakspace")
)
#: The characters of commands that are one character.
SYMBOLS = dict(
    re.findall(
        r"(\w+) (\S)",
        """
    times \u00d7, div ÷, cdot ·, pm ±, mp ∓, ast *, leq ≤, le ≤, geq ≥, ge ≥, neq ≠, ne ≠, lt <, gt >
    approx ≈, equiv ≡, sim \u223c, cong ≅, propto ∝, infty ∞, to →, rightarrow →, leftarrow ←
    leftrightarrow ↔, uparrow ↑, downarrow ↓, Rightarrow ⇒, Leftarrow ⇐, implies ⇒, longrightarrow →
    degree °, textdegree °, angle ∠, triangle △, parallel ∥, perp ⊥, ldots …, dots …, cdots …
    textellipsis …, circ ∘, bullet •, checkmark ✓, star ★, bigstar ★, square □, blacksquare ■
    heartsuit ♥, diamondsuit ♦, clubsuit ♣, spadesuit ♠, prime \u2032, cup \u222a, cap ∩, in ∈, subset ⊂
    emptyset ∅, varnothing ∅, alpha \u03b1, beta β, gamma \u03b3, delta δ, epsilon ε, varepsilon ε, theta θ
    lambda λ, mu μ, pi π, rho \u03c1, sigma \u03c3, tau τ, phi φ, varphi φ, omega ω, Delta Δ, Omega Ω, Sigma Σ
    Pi Π, euro €, pounds £, textdollar $, textpercent %, textasciitilde ~, textbackslash \\
    textunderscore _, textquotedbl \", lbrace {, rbrace }
""",
    )
)
#: The tokens of LaTeX.
TEX = re.compile(
    r"(?P<command>\\[A-Za-z]++\*?)|(?P<escape>\\.)|(?P<open>\{)|(?P<close>\})|(?P<script>[\^_])",
    re.DOTALL,
)
#: What precedes the argument of a command.
ARGUMENT = re.compile(r"\s*+\{")
#: A degree sign as a superscript: 90**^\circ**, 90**^{\circ}**.
DEGREE = re.compile(
    r"(?<!\s)\s*+\^\s*+(?:\{\s*+\\(?:circ|degree)\s*+\}|\\(?:circ|degree)(?![A-Za-z]))"
)
#: The end of an ordinal number: 3**^{rd}**.
ORDINAL = re.compile(r"(?<=\d)\^(?:\{\s*+(st|nd|rd|th)\s*+\}|(st|nd|rd|th)\b)")
#: A power or a charge that has Unicode characters: m**^2**, 10**^{-3}**, SO₄**^{2-}**.
SUPERSCRIPT = re.compile(
    r"(?<=[^\W_]|[)\]₀-₉])\^(?:\{\s*+([-+\u2212]?\d{1,3}|\d?[-+\u2212])\s*+\}|(-?\d(?!\d)|[-+](?![\d{])))"
)
#: The index of a variable or of a substance: x**_1**, H**_2**O, Ca(OH)**_{2}**.
SUBSCRIPT = re.compile(
    r"(?:(?<![^\W_])(?P<variable>[A-Za-z])|(?P<substance>(?<![a-z])[A-Z][a-z]?|\)))"
    r"_(?:\{\s*+(?P<braced>\d{1,2})\s*+\}|(?P<digit>\d)(?!\.?\d))"
)
#: A comma that does not separate, between digits: 1**{,}**234.
DIGIT_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d)")
#: An unbreakable space of LaTeX: 5**~**km. The range 5~10 has none.
TIE = re.compile(r"(?<=[\w.}])~(?=[^\W\d]|\\)|(?<=[^\W\d])~(?=\d)")

# Markdown, and the delimiters of formulas and code.

#: The marks between which formulas and code stand, and the ends of lines, where some of them cannot be open.
MARKS = re.compile(r"\\\\|\\[()\[\]]|\\.|\$\$?|```|`|\n(?:[^\S\n]*+\n)?", re.DOTALL)
#: Emphasis: **bold**, *italic*, and both with underscores.
EMPHASIS = (
    re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*\n]*+)(?<=[^\s\\])\1(?![\w*])"),
    re.compile(r"(?<![\w\\])(_{1,2})(?=[^\s_])([^_\n]*+)(?<=[^\s\\])\1(?![\w_]|\.\w)"),
)
#: Emphasis and line breaks in HTML: <b>red</b>, a<br>b; also powers and indices: m<sup>2</sup>, H<sub>2</sub>O.
HTML = re.compile(r"</?(?:b|i|u|strong|em|mark|code)>|(?P<line><br ?/?>)", re.IGNORECASE)
HTML_SCRIPT = re.compile(
    r"<(?P<kind>sup|sub)>([-+\u2212]?\d{1,3}[-+]?|st|nd|rd|th)</(?P=kind)>", re.IGNORECASE
)
#: The place between a number and a word of text after it: 6**|**\text{lamps}, but not 3\text{rd} or B4\text{ab}.
WORD_AFTER_NUMBER = re.compile(
    r"(?<=\d)(?<![A-Za-z]\d)(?<![A-Za-z]\d\d)(?=\\(?:text(?:rm|bf|it)?|mathrm|mbox)\{(?!(?:st|nd|rd|th)\})[a-z]{2})"
)
#: Quotation marks of LaTeX: ``red''.
QUOTED = re.compile(r"``([^`'\n]++(?:'(?!')[^`'\n]*+)*+)''")
