"""The input items of a response: the messages as they were sent, with an id each."""

from __future__ import annotations

from typing import Any

from api.openai.earlier import native_items
from api.openai.responses import response_object
from api.openai.responses.replay import StoredResponse
from core import ids

Json = dict[str, Any]


def of(stored: StoredResponse, *, image_urls: bool) -> list[Json]:
    """Return the input items of a response, the oldest first.

    Args:
        stored: the response.
        image_urls: whether images have the URL from which they came.
    """
    job = stored.job
    items = response_object.requested(stored.entry).get("input")
    if items is None:
        items = [] if job.question is None else native_items(job.question, len(stored.images))
    return [
        {
            "id": f"msg_{job.id.hex}_in_{number}",
            "type": "message",
            "role": item["role"],
            "status": response_object.COMPLETED,
            "content": [_part(part, stored, image_urls=image_urls) for part in item["content"]],
        }
        for number, item in enumerate(items)
    ]


def _part(part: Json, stored: StoredResponse, *, image_urls: bool) -> Json:
    if part["type"] == "output_text":
        return {**part, "annotations": []}
    if part["type"] != "input_image":
        return part
    position, images = part.get("image"), stored.images
    known = position is not None and position < len(images)
    file_id = ids.show("img", images[position].image.id) if known and position is not None else None
    return {
        "type": "input_image",
        "detail": part.get("detail", "auto"),
        "file_id": part.get("file_id") or file_id,
        "image_url": part.get("image_url") if image_urls else None,
    }
