"""What ``make demo`` shows: a picture, a question, the trace as it grows, the answer, and the cache at work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import output
from cli.client import Client, Pause
from models import SAMPLES

#: The picture with most to look at, and what else to ask about it.
_IMAGE: Final = "s07.png"
_SECOND_QUESTION: Final = "How many yellow shapes?"


@dataclass(frozen=True)
class DemoSample:
    """A picture with a question whose answer is known."""

    image: Path
    question: str
    truth: str


def sample() -> DemoSample:
    """Return the picture to show."""
    listed = json.loads((SAMPLES / "samples.json").read_text())
    chosen = next(one for one in listed if one["file"] == _IMAGE)
    return DemoSample(SAMPLES / chosen["file"], str(chosen["question"]), str(chosen["truth"]))


def show(client: Client, *, key: str, pause: Pause) -> None:
    """Ask two questions about one picture, then say how to ask the next one.

    Args:
        client: talks to the service that has just been started.
        key: shown in the lines to copy.
        pause: how to spend the time between two looks at a job.
    """
    shown = sample()
    _ask(client, shown.image, shown.question, pause=pause)
    output.line(f"(in the picture there are {shown.truth}: {shown.image})")
    output.line()
    output.line(
        "The same picture again, another question: the engine still has the picture in its cache."
    )
    _ask(client, shown.image, _SECOND_QUESTION, pause=pause)
    _invite(client.url, key=key, shown=shown)


def _ask(client: Client, image: Path, question: str, *, pause: Pause) -> None:
    """Submit one question, show its trace growing, then how it came out."""
    output.line()
    output.event("question", question)
    job = client.submit([image], question)
    growth = output.LiveText()
    for event in client.follow(str(job["id"]), pause=pause):
        growth.show(event)
        job = event.get("job", job)
    growth.end()
    output.line()
    output.result(job)


def _invite(url: str, *, key: str, shown: DemoSample) -> None:
    """Print what to copy into another terminal."""
    output.lines(
        f"""
The service is up until you press Ctrl-C. In another terminal:

  curl -s {url}/v1/jobs -H 'Authorization: Bearer {key}' -H 'Prefer: wait=30' \\
    -F image=@{shown.image} -F 'question={shown.question}'

or in Python (pip install requests):

  import requests
  job = requests.post(
      "{url}/v1/jobs",
      headers={{"Authorization": "Bearer {key}", "Prefer": "wait=30"}},
      files={{"image": open("{shown.image}", "rb")}},
      data={{"question": "{shown.question}"}},
  ).json()
  print(job["answer"]["text"])

  URL  {url}
  key  {key}
"""
    )
