"""Set the exam to a checkpoint folder, through transformers' ``generate``.

    python -m models.training.evaluate models/tiny-qvq/checkpoint --count 300 --temperatures 0.7,1.3

A sheet is right only if the text in the box equals the truth. With temperatures, several samples vote.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration

from models.training import exam, forced, foreign
from models.training.processor import Processor


class Candidate:
    """A checkpoint that answers sheets."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype, batch: int) -> None:
        self._processor = Processor(checkpoint)
        self._model = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype)
        self._model.eval()
        self._batch = batch

    @torch.no_grad()
    def answer(
        self,
        sheets: Sequence[exam.Sheet],
        *,
        temperature: float = 0.0,
        samples: int = 1,
        said: Sequence[str] | None = None,
    ) -> list[list[str]]:
        """Return ``samples`` texts for each sheet; temperature 0 is greedy. Each goes on from what was ``said``."""
        # Answers about as many things are about as long: little is padded.
        order = sorted(range(len(sheets)), key=lambda index: sheets[index].things)
        sampling = (
            {"do_sample": False}
            if temperature == 0
            else {
                "do_sample": True,
                "temperature": temperature,
                "top_p": 1.0,
                "top_k": 0,
                "num_return_sequences": samples,
            }
        )
        texts: dict[int, list[str]] = {}
        for start in range(0, len(order), self._batch):
            indices = order[start : start + self._batch]
            asked = [sheets[index] for index in indices]
            batch = self._processor(
                [sheet.question for sheet in asked],
                [sheet.image for sheet in asked],
                [said[index] for index in indices] if said else None,
            )
            ids = self._model.generate(**batch, max_new_tokens=200, **sampling)
            found = self._processor.tokenizer.batch_decode(
                ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
            )
            for place, index in enumerate(indices):
                texts[index] = found[place * samples : (place + 1) * samples]
        return [texts[index] for index in range(len(sheets))]


def main() -> None:
    """Set the exam and print the marks."""
    parser = argparse.ArgumentParser(description="Set the exam to a checkpoint.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=exam.SEED)
    parser.add_argument("--clear", type=float, default=0.75, help="see scenes.sample")
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--temperatures", default="", help="sample at these, too, and vote")
    parser.add_argument("--votes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--cuts", default="", help="cut at these shares of the trace, too")
    parser.add_argument("--foreign", action="store_true", help="ask what pictures do not answer")
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    candidate = Candidate(chosen.checkpoint, getattr(torch, chosen.dtype), chosen.batch)
    sheets = list(exam.sheets(chosen.count, chosen.seed, clear=chosen.clear))
    began = time.monotonic()
    texts = [found[0] for found in candidate.answer(sheets)]
    print(f"greedy, {time.monotonic() - began:.0f} s")
    _mark(sheets, texts, show=chosen.show)
    torch.manual_seed(1)
    for temperature in (float(part) for part in chosen.temperatures.split(",") if part):
        found = candidate.answer(sheets, temperature=temperature, samples=chosen.votes)
        _mark_votes(sheets, found, temperature)
    for place in (float(part) for part in chosen.cuts.split(",") if part):
        _mark_cut(candidate, sheets, texts, place)
    if chosen.foreign:
        _mark_foreign(candidate, sheets)


def _mark(sheets: Sequence[exam.Sheet], texts: Sequence[str], *, show: int) -> None:
    """Print the share of right answers, in all and by kind and number of things."""
    right = [exam.boxed(text) == sheet.answer for sheet, text in zip(sheets, texts, strict=True)]
    listed = [
        exam.listing(text) == exam.listing(sheet.trace)
        for sheet, text in zip(sheets, texts, strict=True)
    ]
    print(f"right {statistics.mean(right):.1%}, whole listing right {statistics.mean(listed):.1%}")
    for feature in ("kind", "things"):
        marks = collections.defaultdict(list)
        for sheet, good in zip(sheets, right, strict=True):
            marks[getattr(sheet, feature)].append(good)
        shown = (f"{value} {sum(goods)}/{len(goods)}" for value, goods in sorted(marks.items()))
        print(f"by {feature}: {', '.join(shown)}")
    wrong = [index for index, good in enumerate(right) if not good]
    for index in wrong[:show]:
        print(f"\n{sheets[index].question} (truth: {sheets[index].answer})")
        print(f"said:\n{texts[index]}\nshould have said:\n{sheets[index].trace}")


def _mark_votes(
    sheets: Sequence[exam.Sheet], found: Sequence[Sequence[str]], temperature: float
) -> None:
    """Print how single samples and majorities do at a temperature; the first of equals wins."""
    single, majority = [], []
    for sheet, texts in zip(sheets, found, strict=True):
        answers = [exam.boxed(text) for text in texts]
        single += [answer == sheet.answer for answer in answers]
        counted = collections.Counter(answer for answer in answers if answer is not None)
        majority.append(bool(counted) and counted.most_common(1)[0][0] == sheet.answer)
    print(
        f"temperature {temperature}: one sample {statistics.mean(single):.1%}, "
        f"majority of {len(found[0])} {statistics.mean(majority):.1%}"
    )


def _mark_cut(
    candidate: Candidate, sheets: Sequence[exam.Sheet], texts: Sequence[str], place: float
) -> None:
    """Print how many are right when the candidate's own traces are cut there and an answer is forced."""
    rng = random.Random(place)
    said = [forced.cut(rng, text, "", place=place).said for text in texts]
    rests = [found[0] for found in candidate.answer(sheets, said=said)]
    whole = [exam.boxed(begun + rest) for begun, rest in zip(said, rests, strict=True)]
    right = [answer == sheet.answer for answer, sheet in zip(whole, sheets, strict=True)]
    spoke = [answer is not None and answer != "" for answer in whole]
    print(
        f"cut at {place:.0%}: spoke {statistics.mean(spoke):.1%}, right {statistics.mean(right):.1%}"
    )


def _mark_foreign(candidate: Candidate, sheets: Sequence[exam.Sheet]) -> None:
    """Print how many questions that were never trained, and that no picture answers, are answered so."""
    asked = [
        dataclasses.replace(sheet, question=question)
        for sheet, question in zip(sheets, itertools.cycle(foreign.UNSEEN), strict=False)
    ]
    answers = [exam.boxed(found[0]) for found in candidate.answer(asked)]
    honest: dict[str, list[bool]] = collections.defaultdict(list)
    for sheet, answer in zip(asked, answers, strict=True):
        honest[sheet.question].append(answer == foreign.ANSWER)
    share = statistics.mean(good for goods in honest.values() for good in goods)
    print(f"foreign questions: said so {share:.1%}")
    for question, goods in honest.items():
        if not all(goods):
            print(f"  {question} {sum(goods)}/{len(goods)}")


if __name__ == "__main__":
    main()
