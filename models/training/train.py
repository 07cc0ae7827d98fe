"""Stage 2: the whole model, with the loss on the answers only, and the aids fading out.

    python -m models.training.train --init vision.pt --minutes 60 --muon 1.5e-3 --out model.pt
    python -m models.training.train --init models/tiny-qvq/checkpoint --minutes 30 --out model.pt

The second line goes on from the checkpoint, whose aids are gone: they are learnt again on the way.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.training import batches, questions, scenes
from models.training.aids import Report, means
from models.training.second_core import Drawer, Helper
from models.training.student import Student, Weights

#: Numbers of things that one batch may mix, by the largest number allowed so far.
_BANDS = {
    3: ([0, 1, 2], [1, 2, 3]),
    5: ([0, 1, 2], [2, 3, 4], [3, 4, 5]),
    8: ([0, 1, 2], [2, 3, 4], [3, 4, 5], [5, 6], [6, 7], [7, 8], [8]),
}
_SAVE_EVERY = 250


@dataclass(frozen=True)
class Batch:
    """Pictures, the first of which have questions."""

    pictures: batches.Pictures
    asked: int
    texts: batches.Texts
    most_things: int


def options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Stage 2: train the whole model.")
    parser.add_argument("--init", type=Path, help="a save of a training, or a checkpoint folder")
    parser.add_argument("--fresh", action="store_true", help="do not take over optimisers' states")
    parser.add_argument("--out", type=Path, default=Path("model.pt"))
    parser.add_argument("--minutes", type=float, default=58)
    parser.add_argument("--elapsed", type=float, default=0, help="minutes of the schedule gone")
    parser.add_argument("--steps", type=int, default=10**9, help="steps at most")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--lr", type=float, default=1e-3, help="of AdamW")
    parser.add_argument("--vision-lr", type=float, default=0.5, help="factor for the vision tower")
    parser.add_argument("--muon", type=float, default=0.0, help="learning rate of Muon, 0 for none")
    parser.add_argument("--muon-vision", action="store_true", help="Muon for vision blocks, too")
    parser.add_argument("--final-lr", type=float, default=0.02, help="share left at the end")
    parser.add_argument("--warm", type=int, default=150, help="steps of warming up")
    parser.add_argument("--pictures", type=int, default=12, help="pictures a step")
    parser.add_argument("--questions", type=int, default=2, help="questions on each picture")
    parser.add_argument("--extra", type=int, default=0, help="pictures for the vision tower alone")
    parser.add_argument("--aid", type=float, default=0.3, help="weight of the aids at the start")
    parser.add_argument("--vision-aid", type=float, default=1.0, help="of the vision tower's share")
    parser.add_argument("--things", default="0.0:3,0.12:5,0.25:8", help="progress:most things, …")
    parser.add_argument("--kinds", default="", help="weights of the kinds of questions, in order")
    parser.add_argument("--drawer", action="store_true", help="draw batches in a second process")
    parser.add_argument("--helper", action="store_true", help="a second process adds gradients")
    parser.add_argument("--log", type=int, default=100, help="steps between two lines")
    return parser.parse_args()


class Optimisers:
    """AdamW for everything, and Muon (if asked for) for the matrices of the blocks."""

    def __init__(self, student: Student, chosen: argparse.Namespace) -> None:
        named = student.named_parameters()
        blocks = [".language_model.layers."] + [".visual.blocks."] * chosen.muon_vision
        matrices = [
            parameter
            for block in blocks
            for name, parameter in named
            if chosen.muon and block in name and parameter.dim() == 2
        ]
        by_muon = {id(parameter) for parameter in matrices}
        rest = [(name, parameter) for name, parameter in named if id(parameter) not in by_muon]
        groups = [
            {
                "params": [
                    parameter
                    for name, parameter in rest
                    if (".visual." in name) == vision and (parameter.dim() < 2) == flat
                ],
                "weight_decay": 0.0 if flat else 0.05,
                "factor": chosen.vision_lr if vision else 1.0,
            }
            for vision in (False, True)
            for flat in (False, True)
        ]
        self._rates = {"adamw": chosen.lr, "muon": chosen.muon}
        self._all: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=chosen.lr, betas=(0.9, 0.98), fused=True)
        }
        if matrices:
            self._all["muon"] = torch.optim.Muon(
                matrices,
                lr=chosen.muon,
                weight_decay=0.05,
                momentum=0.95,
                nesterov=True,
                adjust_lr_fn="match_rms_adamw",
            )

    def step(self, factor: float) -> None:
        """Change the weights, at a share of the learning rates."""
        for name, optimiser in self._all.items():
            for group in optimiser.param_groups:
                group["lr"] = self._rates[name] * factor * group.get("factor", 1.0)
            optimiser.step()

    def states(self) -> dict[str, object]:
        """Return what a save keeps."""
        return {name: optimiser.state_dict() for name, optimiser in self._all.items()}

    def load(self, saved: dict[str, object]) -> None:
        """Take over what a save kept."""
        for name, optimiser in self._all.items():
            if name in saved:
                optimiser.load_state_dict(saved[name])


class Source:
    """Where batches come from.

    Args:
        chosen: the command line's options.
        encode: the student's encoder.
        seed: of the batches.
    """

    def __init__(self, chosen: argparse.Namespace, encode: batches.Encoder, seed: int) -> None:
        self._chosen = chosen
        self._encode = encode
        self._rng, self._noise = random.Random(seed), np.random.default_rng(seed)
        self._most = [
            (float(progress), int(most))
            for progress, _, most in (part.partition(":") for part in chosen.things.split(","))
        ]
        given = [float(part) for part in chosen.kinds.split(",") if part]
        self._kinds = given or questions.WEIGHTS

    def draw(self, progress: float = 1.0) -> Batch:
        """Return a new batch, with as many things as the progress allows."""
        chosen, rng = self._chosen, self._rng
        grid = rng.choice(scenes.GRIDS)
        most = [most for start, most in self._most if progress >= start][-1]
        things = rng.choice(_BANDS[most])
        pictures = batches.draw(rng, self._noise, chosen.pictures, grid, things)
        texts = batches.ask(rng, self._encode, pictures, chosen.questions, weights=self._kinds)
        most_things = max(len(scene.things) for scene in pictures.scenes)
        if chosen.extra:
            more = batches.draw(rng, self._noise, chosen.extra, grid, range(2, 9))
            pictures = batches.Pictures(
                pictures.scenes + more.scenes,
                torch.cat([pictures.pixels, more.pixels]),
                torch.cat([pictures.cells, more.cells]),
                grid,
            )
        return Batch(pictures, chosen.pictures, texts, most_things)


def backward(student: Student, batch: Batch, chosen: argparse.Namespace, progress: float) -> Report:
    """Take one batch's gradients into the student's working copy."""
    fading = chosen.aid * (1 - progress) + 0.03
    weights = Weights(vision=fading * chosen.vision_aid, language=fading)
    report = student.backward(batch.pictures, batch.texts, batch.asked, weights)
    return report | {f"seq{batch.most_things}": report["seq"]}


def train(student: Student, optimisers: Optimisers, chosen: argparse.Namespace) -> None:
    """Train until the time is up."""
    source = Source(chosen, student.encode, chosen.seed)
    drawer: Callable[[], Batch] | None = Drawer(source.draw) if chosen.drawer else None
    helper = None
    if chosen.helper:
        own = Source(chosen, student.encode, chosen.seed + 5000)
        helper = Helper(student, lambda progress: backward(student, own.draw(), chosen, progress))
    parameters = [parameter for _, parameter in student.named_parameters()]
    reports: list[Report] = []
    began = time.monotonic() - chosen.elapsed * 60
    for step in itertools.count():
        progress = (time.monotonic() - began) / 60 / chosen.minutes
        if progress >= 1 or step >= chosen.steps:
            break
        batch = drawer() if drawer else source.draw(progress)
        student.refresh()
        report = backward(student, batch, chosen, progress)
        gradients = helper.gradients() if helper else None
        student.collect(gradients)
        if gradients is not None:
            helper.release()
        report["gn"] = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        report["helped"] = float(gradients is not None)
        optimisers.step(_factor(chosen, step, progress))
        if helper:
            helper.publish(progress)
        reports.append(report)
        if (step + 1) % chosen.log == 0:
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:.1f}m step {step + 1} {means(reports)}", flush=True)
            reports.clear()
        if (step + 1) % _SAVE_EVERY == 0:
            student.save(chosen.out, **optimisers.states())


def _factor(chosen: argparse.Namespace, step: int, progress: float) -> float:
    """Return the share of the learning rate: warming up, then half a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return min(1, (step + 1) / chosen.warm) * (cosine * (1 - chosen.final_lr) + chosen.final_lr)


def main() -> None:
    """Train one leg."""
    chosen = options()
    torch.set_num_threads(1)
    torch.manual_seed(chosen.seed)
    student = Student(chosen.seed)
    saved = student.load(chosen.init) if chosen.init else {}
    optimisers = Optimisers(student, chosen)
    if not chosen.fresh:
        optimisers.load(saved)
    train(student, optimisers, chosen)
    student.save(chosen.out, **optimisers.states())
    print(f"saved {chosen.out}", flush=True)


if __name__ == "__main__":
    main()
