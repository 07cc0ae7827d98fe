"""The prompt of a job: system prompt, images, question. In this order, jobs with the same images share a prefix."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from core.profiles import ModelProfile
from jobs import engine
from jobs.answers import instructions
from jobs.store import claims


def build(
    claim: claims.Claim,
    *,
    images: Sequence[engine.EngineImage],
    profile: ModelProfile,
    rid: str,
) -> engine.GenerationRequest:
    """Return the engine request of ``claim``; every sampling parameter is explicit.

    Args:
        claim: the job as claimed; its options were completed and checked at submission.
        images: the canonical images, in the job's order.
        profile: the served model's limits and defaults.
        rid: the request id: 32 hex characters, new for each generation.
    """
    options = claim.options
    sampling = dataclasses.replace(
        profile.sampling_of(options.get("samples") or 1),
        **{
            name: options[name]
            for name in ("temperature", "top_p")
            if options.get(name) is not None
        },
    )
    return engine.GenerationRequest(
        rid=rid,
        model=claim.model,
        system=system(options, profile),
        images=tuple(images),
        question=claim.question,
        instruction=instructions.behind(claim.question, options.get("answer_format"), profile),
        sampling=sampling,
        max_output_tokens=options.get("max_output_tokens") or profile.default_output_tokens,
        salt=salt(claim),
        seed=options.get("seed"),
    )


def system(options: Mapping[str, Any], profile: ModelProfile) -> str:
    """Return the system prompt of a job: the model's own, and after it the text that the client sent."""
    sent = options.get("system")
    return f"{profile.system_prompt}\n\n{sent}" if sent else profile.system_prompt


def salt(claim: claims.Claim) -> str:
    """Return what isolates the prefix cache: the account and the ordered image keys.

    Accounts never share a prefix, so the timing of one account reveals nothing about the images of another. Two
    images whose short hashes collide inside the engine are still not mistaken for each other.
    """
    keys = hashlib.sha256(" ".join(image.key for image in claim.images).encode()).hexdigest()
    return f"{claim.account_id.hex}:{keys}"


def messages(request: engine.GenerationRequest) -> dict[str, Any]:
    """Return the chat messages of ``request`` as they are stored with the attempt: images by key."""
    content: list[dict[str, str]] = [
        {"type": "image", "image_key": image.key} for image in request.images
    ]
    content.append({"type": "text", "text": request.requested})
    return {
        "messages": [
            {"role": "system", "content": request.system},
            {"role": "user", "content": content},
        ]
    }


def sampling(request: engine.GenerationRequest) -> dict[str, Any]:
    """Return the sampling parameters of ``request`` as they are stored with the attempt."""
    return dataclasses.asdict(request.sampling) | {
        "max_output_tokens": request.max_output_tokens,
        "seed": request.seed,
    }
