"""Training aids, thrown away at the end: small heads that ask the hidden states what they know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.training.scenes import COLOURS, SHAPES

Report = dict[str, float]

#: Rows, and columns, that a grid has at most, and the class for "none before".
_GRID = 8


def means(reports: Sequence[Report]) -> str:
    """Return the mean of every figure in some reports, as one line."""
    names = sorted(set().union(*reports))
    figures = {name: [report[name] for report in reports if name in report] for name in names}
    return " ".join(f"{name} {sum(found) / len(found):.3f}" for name, found in figures.items())


class TokenHead(nn.Module):
    """What is in each image token: is it a thing's centre, of which colour and shape, at which place?

    Args:
        width: of the hidden states.
        places: whether row and column are asked too.
    """

    def __init__(self, width: int, *, places: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.n = [1, len(COLOURS), len(SHAPES)] + ([7, 7] if places else [])
        self.fc = nn.Linear(width, sum(self.n))

    def loss(self, hidden: Tensor, cells: Tensor, rows: int, columns: int) -> tuple[Tensor, Report]:
        """Return the loss and how often the head was right.

        Args:
            hidden: (pictures, rows x columns, width).
            cells: (pictures, rows x columns): -1 for nothing, else colour x 4 + shape.
            rows: of the grid.
            columns: of the grid.
        """
        there, colour, shape, *place = self.fc(self.norm(hidden)).float().split(self.n, -1)
        full = cells >= 0
        loss = F.binary_cross_entropy_with_logits(there[..., 0], full.float())
        report = {"occ": _share(((there[..., 0] > 0) == full).all(-1))}
        if full.any():
            colours, shapes = cells[full] // 4, cells[full] % 4
            loss = loss * 4
            loss = loss + F.cross_entropy(colour[full], colours)
            loss = loss + F.cross_entropy(shape[full], shapes)
            report["col"] = _share(colour[full].argmax(-1) == colours)
            report["shp"] = _share(shape[full].argmax(-1) == shapes)
        if place:
            in_row = torch.arange(rows).repeat_interleave(columns).expand(len(cells), -1)
            in_column = torch.arange(columns).repeat(rows).expand(len(cells), -1)
            for name, logits, truth in zip(("row", "cl"), place, (in_row, in_column), strict=True):
                loss = loss + 0.5 * F.cross_entropy(logits.flatten(0, 1), truth.reshape(-1))
                report[name] = _share(logits.argmax(-1) == truth)
        return loss, report


class PreviousHead(nn.Module):
    """Each thing's token tells the place of the thing before it, in reading order.

    "Which thing comes after the one that I just wrote" is built on this link.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 2 * _GRID)

    def loss(self, hidden: Tensor, cells: Tensor, rows: int, columns: int) -> tuple[Tensor, Report]:
        """Return the loss and how often row and column were right; arguments as in :class:`TokenHead`."""
        full = cells >= 0
        if not full.any():
            return self.fc(self.norm(hidden)).float().sum() * 0, {}
        places = torch.arange(rows * columns)
        latest = torch.where(full, places + 1, 0).cummax(1).values
        before = torch.cat([torch.zeros_like(latest[:, :1]), latest[:, :-1]], 1)
        row = torch.where(before > 0, (before - 1) // columns + 1, 0)[full]
        column = torch.where(before > 0, (before - 1) % columns + 1, 0)[full]
        logits = self.fc(self.norm(hidden[full])).float()
        rowwise, columnwise = logits[:, :_GRID], logits[:, _GRID:]
        loss = F.cross_entropy(rowwise, row) + F.cross_entropy(columnwise, column)
        return loss, {
            "row": _share(rowwise.argmax(-1) == row),
            "col": _share(columnwise.argmax(-1) == column),
        }


def _share(right: Tensor) -> float:
    """Return the share of true values."""
    return right.float().mean().item()
