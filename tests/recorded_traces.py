"""Traces of tiny-qvq on the real SGLang, recorded once: what a guard must leave alone.

    python -m tests.recorded_traces

records them anew, in about three minutes on two cores: after a change of the model, of its prompt or of the engine.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core import profiles
from jobs import engine
from models.training import exam
from tests.real_engine import RealEngine
from worker.engines.sglang.client import SGLang

PATH = Path(__file__).with_name("tiny_qvq_traces.jsonl.gz")
COUNT = 300
_SEED = 4242
#: Hot enough that traces differ as much as the model can make them.
_SAMPLING = profiles.Sampling(temperature=1.0, top_p=1.0)


def read() -> list[dict[str, Any]]:
    """Return the traces: ``question``, and ``tokens``, the pieces in which the text came."""
    with gzip.open(PATH, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _record() -> None:
    with RealEngine() as real, ThreadPoolExecutor(8) as threads:
        client = SGLang(
            real.url,
            api_key=None,
            connect_seconds=10,
            first_token_seconds=60,
            token_seconds=60,
        )
        reported = threads.map(lambda sheet: _ask(client, sheet), exam.sheets(COUNT, _SEED))
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in reported)
        client.close()
    # Without a time in its head the file is the same for the same traces.
    PATH.write_bytes(gzip.compress(text.encode(), mtime=0))


def _ask(client: SGLang, sheet: exam.Sheet) -> dict[str, Any]:
    file = io.BytesIO()
    sheet.image.save(file, "PNG")
    data = file.getvalue()
    request = engine.GenerationRequest(
        rid=uuid.uuid4().hex,
        model=profiles.TINY.name,
        system=profiles.TINY.system_prompt,
        images=(engine.EngineImage(hashlib.sha256(data).hexdigest(), "image/png", data),),
        question=sheet.question,
        sampling=_SAMPLING,
        max_output_tokens=profiles.TINY.default_output_tokens,
        salt=uuid.uuid4().hex,
    )
    with client.stream(request) as stream:
        tokens = [chunk.text for chunk in stream if chunk.text]
    return {"question": sheet.question, "tokens": tokens}


if __name__ == "__main__":
    _record()
