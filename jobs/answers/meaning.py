"""What an answer says, whatever its typesetting and spelling: a number, a quantity, an expression, or a text. Pure.

Codes, plates, dates, scores, versions, times, and substances are texts: no letters are multiplied, no dates subtracted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction

from jobs.answers import folding, numbers, typesetting, units
from jobs.answers.units import Unit
from jobs.document import markup

#: A longer text is compared as a text only.
_MAX_TEXT = 300
#: A single word in brackets, or with the sign after the letter of an option: (A), [6], B), C:.
_BRACKETED = re.compile(r"[(\[（【]?\s?([^\W_]+)\s?[)\]）】]?[.:、]?")  # noqa: RUF001 - full-width brackets
#: A currency before its amount.
_CURRENCY = re.compile(r"(?P<minus>-?)(?:us)?(?P<sign>[$€£¥₩₹])\s?(?=[\d.])")
#: Words after a number that count it. A hyphen, a digit or an operator makes them another kind of text.
_COUNTED = re.compile(r"[^\W\d_][^\d=+*^<>\\\u00d7÷√π|{}\[\]/_]*")
_LATIN = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
#: A number that is not the rest of a code, such as A0KB. A code has no spaces.
_AMOUNT = r"(?:(?<![A-Za-z\d])(?<!\d[.,])\d[\d.,]*(?:[eE][+-]?\d+)?\s?|(?<=\d)\s)"
#: What case alone tells apart after a number: 5 **M**W and 5 mW, 5 k**b** and 5 kB.
_MEGA = re.compile(rf"({_AMOUNT})M(?=(?:[WVANJmgΩ]|Pa|Hz|eV)\b)")
_BITS = re.compile(rf"({_AMOUNT}[kKMGT]i?)([bB])(?=\b|ps\b)")
#: The letter of an option before its text, however it is set off: **(B)** red, **B.** red.
_OPTION = re.compile(r"[(\[]?([a-z])(?:[)\]][.:]?|[.:])\s(?=\S)")
#: A degree of an angle, whose sign is often left out.
_DEGREE: Unit = (("°", 1),)


@dataclass(frozen=True)
class Meaning:
    """What an answer says.

    Attributes:
        key: two answers with equal keys mean the same.
        formula: the answer in LaTeX if algebra can compare it with an expression, or None.
        evident: whether it is evidently an expression; a number or ``2x`` is one only next to an evident one.
        relation: whether it is an equation or an inequality.
        unit: the unit of an expression.
    """

    key: Hashable
    formula: str | None = None
    evident: bool = False
    relation: bool = False
    unit: Unit = ()


def number(value: Fraction) -> Meaning:
    """Return the meaning of a number."""
    formula = f"{value.numerator}"
    if value.denominator != 1:
        formula = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return Meaning(("number", value), formula)


def read(text: str, question: str = "") -> Meaning:
    """Return what ``text`` says.

    Args:
        text: an answer.
        question: decides whether ``3,5`` is a number, and what goes without saying: the answer to "how many lamps"
            counts lamps, and that to "what is y" is y.
    """
    if len(text) > _MAX_TEXT:
        return Meaning(("text", folding.folded(text), ()))
    folded = folding.folded(_cased(typesetting.plain(text)))
    if token := _BRACKETED.fullmatch(folded):
        folded = token[1]
    return (
        _quantity(folded, question)
        or _several(folded, question)
        or _expression(text, question)
        or Meaning(("text", _OPTION.sub(r"\1) ", _tight(folded), count=1), ()))
    )


def _cased(plain: str) -> str:
    """Return ``plain`` with a word for each letter of a unit that has another meaning as a capital."""
    plain = _MEGA.sub(r"\1mega", plain)
    return _BITS.sub(lambda unit: unit[1] + ("bit" if unit[2] == "b" else "byte"), plain)


#: Spaces that change nothing: in (1, 2), A, B, 3 - 1, 10 : 30, ∠ A, ± 2, 1 & 2 of a matrix; those of 1, 234 and of
#: other texts stay.
_LOOSE = re.compile(
    r" ?(?:&|\\\\) ?|(?<=matrix\}) | (?=\\end\{)|(?<=[(\[{∠△±~≈]) "
    r"| (?=[)\]}])| ?,(?!\d) ?(?!\d)|(?<=\d) (?=[-:] ?\d)|(?<=\d[-:]) (?=\d)|(?<=\d [-:]) (?=\d)"
)


def _tight(folded: str) -> str:
    """Return a text without the spaces that change nothing."""
    return _LOOSE.sub(lambda match: match[0].strip(), folded)


# Numbers and quantities.


def _quantity(folded: str, question: str) -> Meaning | None:
    """Return the meaning of a number with or without a unit, or of a number of things."""
    currency = _CURRENCY.match(folded)
    if currency:
        folded = currency["minus"] + folded[currency.end() :]
    leading = numbers.leading(folded, question)
    if leading is None:
        return None
    value, rest = leading
    if currency:
        rest = f" {currency['sign']}{rest}"
    name = rest.strip()
    if not name:
        return number(value)
    unit = units.canonical(name)
    if unit is not None:
        return _measured(value, unit, question)
    glued = not rest[0].isspace() and _LATIN.match(rest) is not None
    variable = len(name) == 1 and (name.isascii() or _LATIN.match(name) is not None)
    if glued or variable or not _COUNTED.fullmatch(name):
        return None
    return number(value) if name in _counted(question) else Meaning(("things", value, name))


def _measured(value: Fraction, unit: Unit, question: str) -> Meaning:
    if unit == _DEGREE or unit in _requested_units(question):
        return number(value)
    return Meaning(("quantity", value, unit), number(value).formula, unit=unit)


#: What "how many" asks for: how many **red lamps** are there, 有几**盏灯**.
_HOW_MANY = re.compile(
    r"\bhow (?:many|much)\s++(?:of (?:the|these|those)\s)?([^\W\d_][\w '-]{0,80})"
)
_HOW_MANY_CHINESE = re.compile(r"(?:多少|几)([\u4e00-\u9fff]{1,8})")
#: The end of what "how many" asks for.
_VERB = re.compile(
    r"\s(?:are|is|were|was|do|does|did|can|could|have|has|will|in|on|at|and|or|of|with|there|appear|you|per|to|would)\b"
)
#: The most characters of a question that are read.
_MAX_QUESTION = 4000
#: Measure words, which say nothing about what is counted.
_MEASURES = frozenset("个只条张盏辆件本位名棵朵头匹支枝把块片")


def _counted(question: str) -> frozenset[str]:
    """Return the names of the things whose number ``question`` asks for, if it asks for one number."""
    folded = question[:_MAX_QUESTION].casefold()
    chinese = _HOW_MANY_CHINESE.findall(folded)
    requested = [_VERB.split(phrase, maxsplit=1)[0].strip() for phrase in _HOW_MANY.findall(folded)]
    if len(chinese) == 1 and not requested:
        things = chinese[0]
        # 六只, 六只猫, 六只鹈鹕在水里.
        return frozenset(things[:length] for length in range(1, len(things) + 1)) - {""}
    if len(requested) != 1 or chinese:
        return _MEASURES if chinese else frozenset()
    words = requested[0].split()
    names = {" ".join(words[start:]) for start in range(len(words))}
    return frozenset(names | {name.removesuffix("s") for name in names})


_IN_UNIT = re.compile(
    r"\b(?:in|how many)\s++([a-z°][a-z°/²³^]{0,20}(?: per [a-z]{1,12}| [a-z]{3,12})?)"
)
_BRACKETED_UNIT = re.compile(r"\(\s?(?:in\s)?([a-z°][a-z°/²³^0-9]{0,12})\s?\)")


def _requested_units(question: str) -> frozenset[Unit]:
    """Return the unit in which ``question`` asks for the answer; none if it names several."""
    folded = folding.folded(question[:_MAX_QUESTION])
    names = _IN_UNIT.findall(folded) + _BRACKETED_UNIT.findall(folded)
    requested = {
        unit
        for name in names
        if (unit := units.canonical(name) or units.canonical(name.split()[0])) is not None
    }
    return frozenset(requested) if len(requested) == 1 else frozenset()


# Several values: points, intervals, sets.

_VALUES = re.compile(r"(?P<open>[(\[{])(?P<inside>[^()\[\]{}]*)(?P<close>[)\]}])")


def _several(folded: str, question: str) -> Meaning | None:
    """Return the meaning of a set, a point, or an interval whose parts are numbers."""
    match = _VALUES.fullmatch(numbers.with_slashes(folded))
    if match is None or "," not in match["inside"]:
        return None
    parts = [_quantity(part.strip(), question) for part in match["inside"].split(",")]
    known = [part.key for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if match["open"] + match["close"] == "{}":
        return Meaning(("set", frozenset(known)))
    return Meaning(("list", match["open"], match["close"], tuple(known)))


# Expressions.

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"|(?P<command>\\[A-Za-z]+|\\[,;:!{} ]|\\\\)"
    r"|(?P<greek>[\u03b1-\u03c9ΔΩ∞°%])"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<raised>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
    r"|(?P<lowered>[₀₁₂₃₄₅₆₇₈₉]+)"
    r"|(?P<operator>[-+*/\u00d7÷·=<>≤≥≠≈±^!\u2212])"
    r"|(?P<root>√)"
    r"|(?P<open>[(\[{])"
    r"|(?P<close>[)\]}])"
    r"|(?P<other>[,|_&'\u2032\u222a∩∈])"
)
_FUNCTIONS = frozenset(
    (
        "sin",
        "cos",
        "tan",
        "log",
        "ln",
        "exp",
        "sqrt",
        "lim",
        "max",
        "min",
        "mod",
        "arcsin",
        "arccos",
        "arctan",
        "pi",
    )
)
#: Functions whose names are no words of prose: sin x is a formula, and max 5 is not.
_TRIGONOMETRIC = frozenset(("sin", "cos", "tan", "arcsin", "arccos", "arctan", "ln"))
#: Letters that stand for no unknown.
_CONSTANTS = _FUNCTIONS | frozenset("eπ∞°%")
#: Operators with which a formula is evident; those of dates and scores are not among them.
_EVIDENT = frozenset("+*\u00d7÷·=±^≤≥≠<>≈")
_RELATIONS = frozenset("=<>≤≥≠≈")
_RELATION_COMMANDS = frozenset(
    ("\\leq", "\\geq", "\\le", "\\ge", "\\neq", "\\ne", "\\lt", "\\gt", "\\approx", "\\in")
)
#: Commands that make no formula evident: they only format.
_FORMATS = frozenset(
    (
        "\\left",
        "\\right",
        "\\text",
        "\\mathrm",
        "\\quad",
        "\\,",
        "\\;",
        "\\:",
        "\\!",
        "\\ ",
        "\\{",
        "\\}",
        "\\infty",
    )
)
#: The left side of an equation that only names its right side.
_NAMED = re.compile(r"\s*(?P<name>[A-Za-z]|[a-z]\([a-z]\))\s*=\s*(?P<value>[^=<>≤≥]+)")
#: Operators that may stand before a number.
_UNARY = frozenset("-+\u2212±")
#: The letters of a product of variables; a longer run is a word.
_LONGEST_PRODUCT = 2
#: The commands of characters in a formula.
_TEX = {
    character: f"\\{name} " for name, character in markup.SYMBOLS.items() if not character.isascii()
}
_TEX |= {"°": "^{\\circ}", "%": "\\%", "\u2212": "-"}
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")


def _expression(text: str, question: str) -> Meaning | None:
    """Return the meaning of a formula, or None if ``text`` is no formula."""
    plain = folding.digits(typesetting.plain(text)).strip().rstrip(" .。;,")
    plain = plain.replace(">=", "≥").replace("<=", "≤")
    named = _NAMED.fullmatch(plain)
    if named and _goes_without_saying(named["name"], named["value"], question):
        return read(named["value"], question)
    head, unit = _with_unit(plain)
    formula = _Formula.of(head)
    if formula is None:
        return None
    if unit == _DEGREE or unit in _requested_units(question):
        unit = ()
    folded = folding.folded(head)
    # A formula that is not evident may be a code, in which spaces and capitals are as in other texts.
    product = formula.evident or _PRODUCT.fullmatch(folded)
    return Meaning(
        ("expression" if product else "text", folded.replace(" ", "") if product else folded, unit),
        # An equation of numbers, such as 1 + 1 = 2, states itself; algebra would only see whether it is true.
        None if formula.relation and not formula.unknowns else formula.tex,
        evident=formula.evident,
        relation=formula.relation,
        unit=unit,
    )


#: A number of unknowns: 2x.
_PRODUCT = re.compile(r"\d++ ?[xyz]")


def _goes_without_saying(name: str, value: str, question: str) -> bool:
    """Return whether the left side of an equation adds nothing: the unknown, or the name of a function of x."""
    letters = set(re.findall(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", value))
    if name[0] in letters:
        return False
    if letters:
        return name in ("y", "f(x)")
    requested = set(re.findall(r"(?<![\w'])[b-hj-z](?![\w'])", question[:_MAX_QUESTION]))
    return name in (requested if len(requested) == 1 else {"x"})


def _with_unit(plain: str) -> tuple[str, Unit]:
    """Return a formula without its unit, and the unit."""
    for space in list(re.finditer(r"\s", plain))[-3:]:
        head, name = plain[: space.start()], plain[space.end() :].casefold()
        unit = units.canonical(name)
        # A single letter may be a variable of the formula.
        if unit is not None and (len(name) > 1 or not re.search(r"(?<![\\A-Za-z])[A-Za-z]", head)):
            return head, unit
    return plain, ()


@dataclass
class _Formula:
    """A formula that was read.

    Attributes:
        tex: the formula in LaTeX.
        evident: whether an operator or a command makes it one.
        relation: whether it is an equation or an inequality.
        unknowns: whether it has any.
    """

    tex: str = ""
    evident: bool = False
    relation: bool = False
    unknowns: bool = False

    @classmethod
    def of(cls, text: str) -> _Formula | None:
        """Return the formula in ``text``, or None if it is a text with other signs, a code, a date or a score."""
        tokens = _tokens(text)
        if tokens is None or not _is_formula(tokens):
            return None
        operators = {token[0] for token in _binary(tokens)}
        commands = {token[0] for token in tokens if token["command"]} - _FORMATS
        letters = [token for token in tokens if token["word"] or token["greek"]]
        signs = any(token[0].lower() in _TRIGONOMETRIC for token in tokens) or any(
            token["raised"] or token["root"] or token[0] in "!π" for token in tokens
        )
        evident = bool(commands or signs or operators & _EVIDENT)
        numeric = any(token["number"] for token in tokens)
        if not evident and not (letters and (numeric or operators)):
            return None
        # Capitals alone may be a code, such as A-1 and 4B, or a substance: O=C=O.
        capitals = bool(letters) and all(token[0].isupper() for token in letters)
        substance = not evident or (operators <= {"="} and not numeric)
        if capitals and substance and not commands and not signs:
            return None
        relation = bool(operators & _RELATIONS or commands & _RELATION_COMMANDS)
        unknowns = any(token[0].lower() not in _CONSTANTS for token in letters)
        return cls("".join(map(_tex, tokens)), evident, relation, unknowns)


def _tokens(text: str) -> list[re.Match[str]] | None:
    """Return the tokens of a formula, or None if there are other signs in it."""
    tokens: list[re.Match[str]] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        tokens.append(token)
    return tokens


def _binary(tokens: list[re.Match[str]]) -> list[re.Match[str]]:
    """Return the operators with something on their left side."""
    return [
        token
        for before, token in itertools.pairwise(token for token in tokens if not token["space"])
        if token["operator"] and not before["operator"] and not before["open"]
    ]


def _is_formula(tokens: list[re.Match[str]]) -> bool:
    """Return whether the tokens can follow each other in a formula."""
    visible = [token for token in tokens if not token["space"]]
    if not visible or (visible[-1]["operator"] and visible[-1][0] != "!"):
        return False
    if visible[0]["operator"] and visible[0][0] not in _UNARY:
        return False
    return (
        all(_is_product(token[0]) for token in tokens if token["word"])
        and all(itertools.starmap(_may_touch, itertools.pairwise(tokens)))
        and all(itertools.starmap(_may_follow, itertools.pairwise(visible)))
    )


def _is_product(word: str) -> bool:
    """Return whether letters are a product of variables or a function, and not a word: x, xy, A, sin."""
    if word.lower() in _FUNCTIONS:
        return True
    return len(word) == 1 or (len(word) <= _LONGEST_PRODUCT and word.islower())


def _may_follow(before: re.Match[str], token: re.Match[str]) -> bool:
    """Return whether a token may follow another one, with a space between them or without."""
    if token["number"]:
        return not before["number"]
    if token["operator"] and before["operator"] and before[0] != "!":
        return token[0] in _UNARY and before[0] != token[0]
    return True


def _may_touch(before: re.Match[str], token: re.Match[str]) -> bool:
    """Return whether a token may follow directly: digits behind a letter are a code, and so are 4B and Na₂."""
    if token["number"]:
        return not before["word"]
    if token["lowered"]:
        return bool(before["word"] or before["greek"]) and len(before[0]) == 1
    if before["lowered"]:
        return not token["word"]
    return True


def _tex(token: re.Match[str]) -> str:
    """Return a token in LaTeX."""
    if token["raised"]:
        return f"^{{{token[0].translate(_DIGITS)}}}"
    if token["lowered"]:
        return f"_{{{token[0].translate(_DIGITS)}}}"
    if token["root"]:
        return "\\sqrt "
    if token["number"]:
        return token[0].replace(",", "")
    if token["word"] and token[0].lower() in _FUNCTIONS:
        return f"\\{token[0].lower()} "
    return _TEX.get(token[0], token[0])
