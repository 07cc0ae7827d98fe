r"""The regular expressions of markup. No other module has regular expressions for headings, boxes, or ``\text``.

Every pattern takes linear time for any text: quantifiers that could match the same run of characters are possessive
(``*+``), and a match of a run can start only at its first character.
"""

from __future__ import annotations

import re

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
    r"(?<=[^\W_]|[)\]₀-₉])\^(?:\{\s*+([-+\u2212]?\d{1,3}|\d?[-+\u2212])\s*+\}|(-?\d)(?!\d))"
)
#: The index of a variable or of a substance: x**_1**, H**_2**O, Ca(OH)**_{2}**.
SUBSCRIPT = re.compile(
    r"(?:(?<![^\W_])(?P<variable>[A-Za-z])|(?P<substance>(?<![a-z])[A-Z][a-z]?|\)))"
    r"_(?:\{\s*+(?P<braced>\d{1,2})\s*+\}|(?P<digit>\d)(?![\w.]*+\d))"
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
