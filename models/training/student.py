"""The model in training: float32 masters, a bfloat16 copy that does the work, and the aids beside it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2VLForConditionalGeneration

from models.training import architecture, forward
from models.training.aids import PreviousHead, Report, TokenHead
from models.training.batches import IGNORED, Encoder, Pictures, Texts

#: Layers of the language model whose states the aids ask: what and where, then "what came before".
_TAPS = (2, 3)


@dataclass(frozen=True)
class Weights:
    """How much the aids count beside the answer's own loss."""

    vision: float
    language: float


class Student:
    """The model with its aids.

    Args:
        seed: of the first weights.
    """

    def __init__(self, seed: int) -> None:
        tokenizer = architecture.tokenizer()
        self.encode = Encoder(tokenizer)
        model = architecture.create(tokenizer, seed)
        hidden = architecture.HIDDEN
        self.masters = nn.ModuleDict(
            {
                "model": model,
                "vision_aid": TokenHead(hidden),
                "language_aid": TokenHead(hidden, places=True),
                "previous_aid": PreviousHead(hidden),
            }
        )
        self.working = halved(self.masters)
        self._free = self.encode.free()

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the masters' parameters with their names."""
        return list(self.masters.named_parameters())

    def refresh(self) -> None:
        """Copy the masters into the working copy."""
        with torch.no_grad():
            # One call for all tensors; PyTorch's own optimisers use it too.
            torch._foreach_copy_(list(self.working.parameters()), list(self.masters.parameters()))

    def collect(self, more: list[Tensor] | None = None) -> None:
        """Move the working copy's gradients to the masters, averaged with ``more`` if it is given."""
        pairs = zip(self.working.parameters(), self.masters.parameters(), strict=True)
        for index, (working, master) in enumerate(pairs):
            if working.grad is None:
                continue
            master.grad = working.grad.float()
            if more is not None:
                master.grad.add_(more[index]).mul_(0.5)
            working.grad = None

    def vision_loss(self, pictures: Pictures) -> tuple[Tensor, Tensor, Report]:
        """Return the image tokens, the vision aid's loss on them, and its report."""
        visual = self.working["model"].model.visual
        tokens = forward.see(visual, pictures.pixels.bfloat16(), *pictures.grid)
        loss, report = self.working["vision_aid"].loss(tokens, pictures.cells, *pictures.grid)
        return tokens, loss, report

    def backward(self, pictures: Pictures, texts: Texts, count: int, weights: Weights) -> Report:
        """Take the gradients of one batch into the working copy; return what happened.

        Args:
            pictures: of which the first ``count`` are asked about; the rest train the vision tower alone.
            texts: the questions.
            count: see ``pictures``.
            weights: of the aids.
        """
        tokens, seen, vision = self.vision_loss(pictures)
        answers, aided, report = self._language_loss(tokens[:count], pictures, texts, count)
        (answers + weights.vision * seen + weights.language * aided).backward()
        report |= {f"v_{name}": value for name, value in vision.items()}
        report["loss"] = answers.item()
        return report

    def _language_loss(
        self, tokens: Tensor, pictures: Pictures, texts: Texts, count: int
    ) -> tuple[Tensor, Tensor, Report]:
        """Return the loss on the answers, that of the aids, and a report."""
        model, grid = self.working["model"], pictures.grid
        language = model.model.language_model
        embedded = language.embed_tokens(texts.ids)
        places = texts.starts[:, None] + torch.arange(grid[0] * grid[1])[None]
        index = places[..., None].expand(-1, -1, embedded.shape[-1])
        embedded = embedded.scatter(1, index, tokens[texts.pictures].to(embedded.dtype))
        hidden, tapped = forward.think(language, embedded, texts.positions, _TAPS)
        mask = texts.labels != IGNORED
        logits = model.lm_head(hidden[mask]).float()
        loss = F.cross_entropy(logits, texts.labels[mask])
        report = self._marks(logits, texts.labels, mask)
        cells = pictures.cells[:count][texts.pictures]
        aided, what = self.working["language_aid"].loss(tapped[0].gather(1, index), cells, *grid)
        linked, before = self.working["previous_aid"].loss(tapped[1].gather(1, index), cells, *grid)
        report |= {f"m_{name}": value for name, value in what.items()}
        report |= {f"m_prev{name}": value for name, value in before.items()}
        return loss, aided + linked, report

    @torch.no_grad()
    def _marks(self, logits: Tensor, labels: Tensor, mask: Tensor) -> Report:
        """Return the share of right tokens, and of answers with every token right (a right greedy trace)."""
        said, wanted = logits.argmax(-1), labels[mask]
        either = torch.isin(wanted, self._free) & torch.isin(said, self._free)
        right = torch.zeros_like(mask)
        right[mask] = (said == wanted) | either
        return {
            "seq": (right | ~mask).all(1).float().mean().item(),
            "tok": right[mask].float().mean().item(),
        }

    def load(self, path: Path) -> dict[str, Any]:
        """Take weights from a save of a training, or from a checkpoint folder (without aids).

        Returns:
            What else was in the save: the optimisers' states.
        """
        if path.is_dir():
            found = Qwen2VLForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
            self.masters["model"].load_state_dict(found.state_dict())
            return {}
        saved: dict[str, Any] = torch.load(path)
        for name, module in self.masters.items():
            if name in saved:
                module.load_state_dict(saved.pop(name))
        return saved

    def save(self, path: Path, **more: object) -> None:
        """Save the masters and ``more``; a save that is interrupted leaves the one before."""
        unfinished = path.with_name(path.name + ".tmp")
        states = {name: module.state_dict() for name, module in self.masters.items()}
        torch.save(states | more, unfinished)
        unfinished.replace(path)


def halved(masters: nn.Module) -> nn.Module:
    """Return a copy in bfloat16, with rotary frequencies kept exact."""
    working = copy.deepcopy(masters).bfloat16()
    for copied, original in zip(working.modules(), masters.modules(), strict=True):
        if hasattr(original, "inv_freq"):
            copied.inv_freq = original.inv_freq.clone()
    return working
