"""Stage 1: the vision tower learns to say what is in each image token.

python -m models.training.train_vision --minutes 7 --out vision.pt
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from pathlib import Path

import numpy as np
import torch

from models.training import batches, scenes
from models.training.aids import Report, means
from models.training.student import Student

_LOG_EVERY = 100


def options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Stage 1: train the vision tower.")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pictures", type=int, default=64, help="pictures a step")
    parser.add_argument("--steps", type=int, default=10**9, help="steps at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("vision.pt"))
    return parser.parse_args()


def main() -> None:
    """Train until the time is up, then save."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    student = Student(chosen.seed)
    trained = [
        parameter
        for name, parameter in student.named_parameters()
        if ".visual." in name or name.startswith("vision_aid.")
    ]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=chosen.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    rng, noise = random.Random(chosen.seed), np.random.default_rng(chosen.seed)
    reports: list[Report] = []
    began = time.monotonic()
    for step in itertools.count():
        progress = (time.monotonic() - began) / 60 / chosen.minutes
        if progress >= 1 or step >= chosen.steps:
            break
        factor = min(1, (step + 1) / 100) * (0.45 * (1 + math.cos(math.pi * progress)) + 0.1)
        for group in optimiser.param_groups:
            group["lr"] = chosen.lr * factor
        pictures = batches.draw(rng, noise, chosen.pictures, rng.choice(scenes.GRIDS))
        student.refresh()
        _, loss, report = student.vision_loss(pictures)
        loss.backward()
        student.collect()
        report |= {"loss": loss.item(), "gn": torch.nn.utils.clip_grad_norm_(trained, 1.0).item()}
        optimiser.step()
        reports.append(report)
        if (step + 1) % _LOG_EVERY == 0:
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:.1f}m step {step + 1} {means(reports)}", flush=True)
            reports.clear()
    student.save(chosen.out)
    print(f"saved {chosen.out}", flush=True)


if __name__ == "__main__":
    main()
