"""``python -m tests.harness``: lmms-eval and ``longlook eval`` ask the real tiny-qvq the same questions.

Draws new scenes of the model card's exam, starts a service with the real engine, and prints both accuracies. Fails if a
request failed, or if the programs disagree about a scene: without sampling, nothing explains that.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench import figures, scenes
from cli import client
from tests.harness import programs
from tests.harness.answers import Answers, accuracy, faults

#: The names of the programs, with the route that they use.
CHAT, BATCH = "lmms-eval, /v1/chat/completions", "longlook eval, /v1/batches"


def main() -> int:
    """Run both programs; return 0 if all requests succeeded and all answers are the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness", description=__doc__)
    parser.add_argument("--n", type=int, default=20, help="scenes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the scenes")
    options = parser.parse_args()
    if options.n < 1:
        parser.error("--n must be at least 1.")
    with tempfile.TemporaryDirectory(prefix="ll-harness-") as name:
        ids = programs.draw(Path(name), options.n, options.seed)
        began = time.monotonic()
        try:
            answers = _answers(Path(name))
        except (programs.Missing, programs.Failed) as error:
            _print(str(error))
            return 1
    seconds = time.monotonic() - began
    figures.show(
        f"{options.n} scenes, seed {options.seed}, {seconds:.0f} s with the start of the engine",
        ("program", "right", "accuracy", "95 % interval", "failed"),
        _rows(answers),
    )
    found = list(faults(ids, answers))
    _print(*(found or [f"The answers to all {options.n} scenes are the same."]))
    return 1 if found else 0


def _answers(folder: Path) -> Mapping[str, Answers]:
    """Return the answers of both programs to the data set in a folder, one after the other."""
    programs.check()
    with scenes.own_service() as settings:
        [model] = client.connect(settings).look("/v1/models")["data"]
        target = programs.Target(settings.url, client.key(settings), str(model["id"]))
        _print(shlex.join(["python", *programs.lmms_eval_command(target, Path("lmms-eval"))]))
        return {
            CHAT: programs.lmms_eval(folder, target),
            BATCH: programs.longlook_eval(folder, target),
        }


def _rows(answers: Mapping[str, Answers]) -> list[list[str]]:
    counted = {name: accuracy(given) for name, given in answers.items()}
    rows = [
        [
            name,
            f"{one.right} of {one.questions}",
            f"{one.share:.1%}",
            f"{one.low:.1%} to {one.high:.1%}",
            str(one.failed),
        ]
        for name, one in counted.items()
    ]
    card = scenes.card_total()
    return [
        *rows,
        ["model card", f"{card.right} of {card.requested}", f"{card.share:.1%}", "", ""],
    ]


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
