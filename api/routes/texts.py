"""Documentation of the bodies that create jobs and groups: both content types, with examples."""

from api.framework import RequestBodySpec
from api.schemas.requests import GroupForm, GroupRequest, JobForm, JobRequest

_PIXEL = "data:image/png;base64,iVBORw0KGgo…"

CREATE = RequestBodySpec(
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
                "summary": "Two uploaded images",
                "value": {
                    "question": "What differs between the two?",
                    "images": [
                        {"image_id": "img_0190c0de00007000800000000000abcd"},
                        {"image_id": "img_0190c0de00007000800000000000abce"},
                    ],
                    "options": {
                        "priority": "low",
                        "max_output_tokens": 2048,
                        "metadata": {"case": "42"},
                    },
                },
            },
        },
    },
    description="A form with files, or JSON with data URLs, image ids or URLs. In both, `options` contains "
    "everything besides the question, the images and the model.",
    carries_images=True,
)

CREATE_GROUP = RequestBodySpec(
    {"multipart/form-data": GroupForm, "application/json": GroupRequest},
    examples={
        "application/json": {
            "questions": {
                "summary": "Two questions about one image",
                "value": {
                    "questions": ["How many pelicans are there?", "Which of them fly?"],
                    "images": [{"data": _PIXEL}],
                },
            },
        },
    },
    description="As for a job, with `questions` instead of `question`; a form has one part for each question.",
    carries_images=True,
)
