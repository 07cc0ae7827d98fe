"""The functions of the task in ``scenes.yaml``, which lmms-eval imports."""

from __future__ import annotations

from typing import Any

from PIL import Image

Line = dict[str, Any]


def visual(doc: Line) -> list[Image.Image]:
    """Return the image of a line; its path is relative to the current folder."""
    return [Image.open(doc["image"]).convert("RGB")]


def question(doc: Line, lmms_eval_specific_kwargs: Line | None = None) -> str:  # noqa: ARG001 - lmms-eval passes it
    """Return the text that is sent after the image."""
    return str(doc["question"])


def grade(doc: Line, results: list[str]) -> dict[str, float]:
    """Return the metrics of an answer, which is right if it is the expected text in any case."""
    return {"accuracy": float(results[0].strip().lower() == str(doc["answer"]).lower())}
