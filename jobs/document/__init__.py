"""The structure of a trace that grows: paragraphs, headings, formulas, boxes, with their positions. Pure.

:class:`Document` is the structure of one text. The text may grow: chunks of any size and the whole text give the same
document, and the time is linear in the length of the text, whatever a looping model writes.

- :mod:`jobs.document.markup` has the regular expressions of headings, boxes and text commands, and nowhere else are
  there others.
- :mod:`jobs.document.parts` has the parts of a document.
- :mod:`jobs.document.blocks` and :mod:`jobs.document.boxes` read a text into parts.
"""

from __future__ import annotations

from jobs.document.model import Document
from jobs.document.parts import Block, BlockKind, Box, Heading, Span, SpanKind

__all__ = ["Block", "BlockKind", "Box", "Document", "Heading", "Span", "SpanKind"]
