r"""What a person reads where a model writes LaTeX and Markdown: ``\text{red}`` is red, ``90^\circ`` is 90°. Pure.

Real mathematics, such as fractions, roots, sums, and matrices, stays LaTeX: a client can render it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from jobs.document import markup

_RAISED = str.maketrans("0123456789+-\u2212", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
#: What an escaped character stands for; other ones stay as they are.
_ESCAPED = {
    **dict.fromkeys(",;:> \n\t", " "),
    **{character: character for character in "%$#&_{}*"},
    **dict.fromkeys("!-/", ""),
}
#: Symbols of chemical elements: only a substance has digits as an index after more than one letter.
_ELEMENTS = frozenset(
    re.findall(
        r"\S+",
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
        "Nb Mo Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Pu",
    )
)
#: A word in which an index may stand; its letters must be symbols of elements.
_SUBSTANCE = re.compile(r"(?<![\w(])[A-Za-z(][\w(){}]*+")
_ATOM = re.compile(r"[A-Z][a-z]?|[a-z]+")
#: Takes the place of code and of formulas that stay LaTeX, until the Markdown around them is removed.
_PLACEHOLDER = "\ufdd0"
_OPENING = {"\\(": "\\)", "\\[": "\\]", "$": "$", "$$": "$$", "`": "`", "```": "```"}
#: What must be closed in the same line, and in the same paragraph.
_WITHIN_LINE = frozenset(("$", "`"))
_WITHIN_PARAGRAPH = frozenset(("$", "`", "\\(", "$$", "\\["))
#: What would read as typesetting without the marks of code around it.
_TYPESETTING = re.compile(r"[\\*$^<~{]|(?<!\w)_|_(?!\w)")
#: Indices and a charge that are a formula of their own: CH$**_3**$OH, Na$**^+**$.
_SCRIPTS = re.compile(
    r"\A(?=[_^])(?:_(?:\{(?P<braced>\d{1,3})\}|(?P<digit>\d)))?(?:\^(?:\{(?P<power>\d{0,2}[-+\u2212]?)\}|(?P<sign>[-+\u2212\d])))?\Z"
)
#: The most characters of a text that is read; no answer is longer.
_MAX_TEXT = 200_000


def plain(tex: str, *, formula: bool = False) -> str:
    r"""Return ``tex`` without typesetting, and with Unicode for what has a character.

    Args:
        tex: Markdown with LaTeX in it, as a model writes it.
        formula: whether all of it is the content of a formula or of a box. There ``- 6`` is a negative number, and
            in other texts it is an item of a list.
    """
    text = tex.strip()
    if len(text) > _MAX_TEXT:
        return text
    text = text.replace(_PLACEHOLDER, "\ufffd")
    text, quotations = markup.QUOTED.subn("“\\1”", text)
    text = _formula(text, unary=True) if formula else _sections(text)
    text = (_without_emphasis(text) if formula else text).strip()
    if quotations == 1 and text.startswith("“") and text.endswith("”"):
        return text[1:-1].strip()
    return text


def _sections(text: str) -> str:
    """Return a text of prose, formulas, and code without typesetting."""
    segments = list(_segments(text))
    alone = sum(bool(segment.content.strip(" .。\n")) for segment in segments) == 1
    retained: list[str] = []
    parts = [_reduced(segment, retained, alone=alone) for segment in segments]
    text = _without_emphasis("".join(parts))
    # A function, because the retained texts contain backslashes.
    remaining = iter(retained)
    return re.sub(_PLACEHOLDER, lambda _: next(remaining), text)


@dataclass(frozen=True)
class _Segment:
    """A part of a text: prose, a formula, or code, with the mark before it."""

    mark: str
    content: str

    @property
    def source(self) -> str:
        """The segment with its marks."""
        return f"{self.mark}{self.content}{_OPENING.get(self.mark, '')}"


def _segments(text: str) -> list[_Segment]:
    """Return the formulas and the code in ``text``, and the prose between them."""
    segments: list[_Segment] = []
    written, mark, start = 0, "", 0
    for match in markup.MARKS.finditer(text):
        token = match[0]
        if token[0] == "\n":
            blank = len(token) > 1
            if mark in _WITHIN_LINE or (blank and mark in _WITHIN_PARAGRAPH):
                mark = ""
            continue
        if mark and token == _OPENING[mark] and _closes(text, match, mark):
            segments += [
                _Segment("", text[written:start]),
                _Segment(mark, text[start + len(mark) : match.start()]),
            ]
            written, mark = match.end(), ""
        elif mark in ("", "$") and token in _OPENING and _opens(text, match):
            mark, start = token, match.start()
    segments.append(_Segment("", text[written:]))
    return [segment for segment in segments if segment.content]


def _opens(text: str, mark: re.Match[str]) -> bool:
    """Return whether a mark can begin a formula: a price does not."""
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    return mark[0] != "$" or (not after.isspace() and (after in "_^" or not before.isalnum()))


def _closes(text: str, mark: re.Match[str], opened: str) -> bool:
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    return opened != "$" or not (before.isspace() or after.isdigit())


def _reduced(segment: _Segment, retained: list[str], *, alone: bool) -> str:
    """Return a segment without typesetting; what must not change any more goes to ``retained``."""
    if segment.mark == "":
        return _formula(segment.content, unary=False)
    if segment.mark == "```":
        retained.append(segment.source)
        return _PLACEHOLDER
    if segment.mark == "`":
        # In a longer text, the marks stay around what would otherwise read as typesetting.
        marked = not alone and _TYPESETTING.search(segment.content) is not None
        retained.append(segment.source if marked else segment.content)
        return _PLACEHOLDER
    content = segment.content.strip()
    if _is_mathematics(content):
        retained.append(_formula(content, unary=True) if alone else segment.source)
        return _PLACEHOLDER
    return _formula(content, unary=True)


def _without_emphasis(text: str) -> str:
    for pattern in markup.EMPHASIS:
        text = pattern.sub(r"\2", text)
    return text


def _is_mathematics(tex: str) -> bool:
    """Return whether ``tex`` has a command that no text can replace."""
    for token in markup.TEX.finditer(tex):
        if token.lastgroup == "command" and not _known(token[0][1:], tex, token.end()):
            return True
    return False


def _known(name: str, tex: str, end: int) -> bool:
    if name in markup.TEXT_COMMANDS:
        return markup.ARGUMENT.match(tex, end) is not None
    return (
        name in markup.SYMBOLS
        or name in markup.SPACE_COMMANDS
        or name in markup.EMPTY_COMMANDS
        or name in markup.FONT_COMMANDS
    )


def _formula(tex: str, *, unary: bool) -> str:
    """Return a formula, or prose with LaTeX in it, without typesetting; ``unary``: a minus at its start is one."""
    if unary:
        tex = re.sub(r"\A\s*+([-\u2212])\s++(?=[\d.\\])", r"\1", tex)
        tex = _SCRIPTS.sub(_script_of_text, tex)
    if "<" in tex:
        tex = markup.HTML_SCRIPT.sub(_script, tex)
        tex = markup.HTML.sub(lambda match: "\n" if match["line"] else "", tex)
    if not any(character in tex for character in "\\^_~{"):
        return tex
    mathematics = _is_mathematics(tex)
    tex = markup.WORD_AFTER_NUMBER.sub(" ", tex)
    tex = markup.TIE.sub(" ", markup.DIGIT_COMMA.sub(",", tex))
    if not mathematics:
        tex = markup.DEGREE.sub("°", tex)
    spaced = "\\" in tex
    text = _Unwrapping(tex, mathematics=mathematics).text()
    if spaced:
        text = re.sub(r"(?<=\S) {2,}+", " ", text)
    return text if mathematics else _with_scripts(text)


@dataclass
class _Unwrapping:
    """Removes the commands of typesetting from a text.

    Attributes:
        tex: the text.
        mathematics: whether it has other commands. Then symbols stay commands, and the arguments of commands stay
            as they are.
    """

    tex: str
    mathematics: bool
    _pieces: list[str] = field(default_factory=list)
    #: The open braces: the place of the piece that stands for a removed command, or None for a brace that stays.
    _open: list[tuple[int, str] | None] = field(default_factory=list)
    #: How many of them stay.
    _depth: int = 0

    def text(self) -> str:
        """Return the text without typesetting."""
        position = 0
        while (token := markup.TEX.search(self.tex, position)) is not None:
            self._pieces.append(self.tex[position : token.start()])
            position = self._take(token)
        self._pieces.append(self.tex[position:])
        for opened in self._open:
            # An argument without an end: its command stays.
            if opened is not None:
                self._pieces[opened[0]] = opened[1]
        return "".join(self._pieces)

    def _take(self, token: re.Match[str]) -> int:
        """Append what a token stands for; return the end of what was read."""
        match token.lastgroup:
            case "command":
                return self._command(token)
            case "open":
                return self._brace(token)
            case "close":
                self._close()
            case "escape" if not (self._verbatim or (self.mathematics and token[0][1] in "{}-/!")):
                if token[0] == "\\\\":
                    self._pieces.append(token[0] if self.mathematics else self._line_break(token))
                else:
                    self._pieces.append(_ESCAPED.get(token[0][1], token[0]))
            case _:
                self._pieces.append(token[0])
        return token.end()

    @property
    def _verbatim(self) -> bool:
        return self.mathematics and self._depth > 0

    def _line_break(self, token: re.Match[str]) -> str:
        """Return what two backslashes stand for; those of a network path stay."""
        return "\n" if self.tex[token.end() : token.end() + 1] in ("", " ", "\n") else token[0]

    def _command(self, token: re.Match[str]) -> int:
        name, end = token[0][1:], token.end()
        argument = markup.ARGUMENT.match(self.tex, end)
        if self._verbatim:
            self._pieces.append(token[0])
        elif name in markup.TEXT_COMMANDS and argument is not None:
            self._open.append((len(self._pieces), self.tex[token.start() : argument.end()]))
            self._pieces.append("")
            return argument.end()
        elif name in markup.SPACE_COMMANDS:
            self._pieces.append(" ")
            end = self._skip(end)
        elif self.mathematics:
            self._pieces.append(token[0])
        elif name in markup.EMPTY_COMMANDS or name in markup.FONT_COMMANDS:
            return self._skip(end)
        else:
            self._pieces.append(markup.SYMBOLS.get(name, token[0]))
        return end

    def _brace(self, token: re.Match[str]) -> int:
        r"""Open a group; that of a font, ``{\bf red}``, is removed."""
        inside = markup.TEX.match(self.tex, token.end())
        if inside is not None and inside[0][1:] in markup.FONT_COMMANDS and not self._verbatim:
            end = self._skip(inside.end())
            self._open.append((len(self._pieces), self.tex[token.start() : end]))
            self._pieces.append("")
            return end
        self._open.append(None)
        self._depth += 1
        self._pieces.append("{")
        return token.end()

    def _close(self) -> None:
        opened = self._open.pop() if self._open else None
        if opened is None:
            self._pieces.append("}")
            self._depth = max(self._depth - 1, 0)

    def _skip(self, position: int) -> int:
        """Return the place after one space, which only ends a command."""
        return position + self.tex.startswith(" ", position)


def _script_of_text(match: re.Match[str]) -> str:
    """Return the indices and the charge of a text outside of the formula, in characters."""
    lowered = (match["braced"] or match["digit"] or "").translate(_LOWERED)
    return lowered + (match["power"] or match["sign"] or "").translate(_RAISED)


def _script(match: re.Match[str]) -> str:
    """Return a power or an index of HTML as that of LaTeX."""
    return f"{'^' if match['kind'].lower() == 'sup' else '_'}{{{match[2]}}}"


def _with_scripts(text: str) -> str:
    """Return ``text`` with characters for powers and indices, if it has some for all of them."""
    text = re.sub(r"°\s++(?=[CF]\b)", "°", text)
    if "^" not in text and "_" not in text:
        return text
    raised = markup.ORDINAL.sub(lambda match: match[1] or match[2], text)
    raised = _SUBSTANCE.sub(_lowered, raised)
    raised = markup.SUPERSCRIPT.sub(lambda match: (match[1] or match[2]).translate(_RAISED), raised)
    return text if "^" in raised or "_{" in raised else raised


def _lowered(word: re.Match[str]) -> str:
    """Return a word with indices, if it is a variable or a substance."""
    letters = set(_ATOM.findall(word[0]))
    substance = letters <= _ELEMENTS

    def lowered(match: re.Match[str]) -> str:
        if not substance and not match["variable"]:
            return match[0]
        base = match["variable"] or match["substance"]
        return base + (match["braced"] or match["digit"]).translate(_LOWERED)

    return markup.SUBSCRIPT.sub(lowered, word[0])
