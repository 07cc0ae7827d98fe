"""What the document says of creating a job: both content types, with examples."""

from __future__ import annotations

from api.framework import Body
from api.schemas.requests import JobForm, JobRequest

_PIXEL = "data:image/png;base64,iVBORw0KGgo…"

CREATE = Body(
    {"multipart/form-data": JobForm, "application/json": JobRequest},
    examples={
        "application/json": {
            "data": {
                "summary": "An image in the request",
                "value": {
                    "question": "How many pelicans are there?",
                    "images": [{"data": _PIXEL}],
                },
            },
            "uploaded": {
                "summary": "Two images that were uploaded before",
                "value": {
                    "question": "What differs between the two?",
                    "images": [
                        {"image_id": "img_0190c0de00007000800000000000abcd"},
                        {"image_id": "img_0190c0de00007000800000000000abce"},
                    ],
                    "options": {
                        "priority": "high",
                        "max_output_tokens": 2048,
                        "metadata": {"case": "42"},
                    },
                },
            },
        },
    },
    description="A form with files, or JSON with data URLs and image ids. In both, everything beside the "
    "question, the images and the model goes into `options`.",
)
