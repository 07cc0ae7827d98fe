"""The demo of ``make demo``: an image, two questions, the growing traces and the answers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import job_output, output
from cli.client import Client, Pause
from models import SAMPLES

#: The picture with most to look at, and what else to ask about it.
_IMAGE: Final = "s07.png"
_SECOND_QUESTION: Final = "How many yellow shapes?"


@dataclass(frozen=True)
class DemoSample:
    """An image with a question and its correct answer."""

    image: Path
    question: str
    truth: str


def sample() -> DemoSample:
    """Return the picture to show."""
    listed = json.loads((SAMPLES / "samples.json").read_text())
    chosen = next(one for one in listed if one["file"] == _IMAGE)
    return DemoSample(SAMPLES / chosen["file"], str(chosen["question"]), str(chosen["truth"]))


def show(client: Client, *, key: str, pause: Pause) -> None:
    """Ask two questions about one image, then show how to ask the next one.

    Args:
        client: client of the started service.
        key: API key, shown in the commands to copy.
        pause: waits between two requests.
    """
    shown = sample()
    _ask(client, shown.image, shown.question, pause=pause)
    output.line(f"(the image contains {shown.truth}: {shown.image})")
    output.line()
    output.line(
        "Another question about the same image: the engine still has the image in its cache."
    )
    _ask(client, shown.image, _SECOND_QUESTION, pause=pause)
    _show_commands(client.url, key=key, shown=shown)


def _ask(client: Client, image: Path, question: str, *, pause: Pause) -> None:
    """Submit one question, and show its trace as it grows and its result."""
    output.line()
    output.event("question", question)
    job = client.submit([image], question)
    live = job_output.LiveText()
    for event in client.follow(str(job["id"]), pause=pause):
        live.show(event)
        job = event.get("job", job)
    live.end()
    output.line()
    job_output.result(job)


def _show_commands(url: str, *, key: str, shown: DemoSample) -> None:
    """Print commands to copy into another terminal."""
    output.lines(
        f"""
The service runs until you press Ctrl-C. In another terminal:

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
