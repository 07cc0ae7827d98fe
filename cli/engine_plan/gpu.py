"""The engine of a machine with NVIDIA GPUs: QVQ-72B-Preview, or another model of the Qwen2-VL family.

The arithmetic, for each GPU: ``memory x fraction`` holds the weights' share, the vision cache, and the
key-value cache; what is left beside it serves activations. ``key-value cache / KiB a token`` is the
number of tokens that all running streams have together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cli.engine_plan import sizes
from cli.engine_plan.command import (
    FlagReason,
    Plan,
    ServeOptions,
    common,
    grammar_waits,
    keep_alive,
)
from cli.engine_plan.devices import Device
from core import errors, profiles

#: GPUs over which one engine can be split.
SPLITS = (8, 4, 2, 1)
#: GiB that the vision tower's activations, CUDA graphs and the tokenizer's process take beside the pool.
SPARE = 12
#: The pool's share of a GPU: the larger one where it leaves ``SPARE``, else the smaller.
SHARES = (0.88, 0.85)
#: Embeddings of images, in MiB of each GPU, taken from the pool. A token is 16 KiB: 2048 holds 131,072.
VISION_CACHE = 2048
#: Streams at once, at most, and the tokens one has on average when all run.
STREAMS, STREAM_TOKENS = 64, 5120
#: What is left of bf16 weights by ``--quantization fp8``: embeddings and vision tower stay as they are.
FP8 = 72 / 136.7
#: Pixels of one image token: a patch of 14 by 14, merged two by two.
TOKEN_PIXELS = 28 * 28


@dataclass(frozen=True)
class Fit:
    """How a model lies on its GPUs: over how many, and with room for how many tokens of context."""

    parts: int
    share: float
    weights: float
    tokens: int


def plan(order: ServeOptions, devices: Sequence[Device]) -> Plan:
    """Return the command for these GPUs.

    Raises:
        core.errors.LaunchError: the model does not fit on them.
    """
    size = sizes.measure(order.path)
    quantised = order.given("--quantization") == "fp8"
    fit = best(order, devices, size, quantised=quantised)
    if fit is None:
        raise errors.LaunchError(_advice(order, devices, size, quantised=quantised))
    return Plan(
        title=f"{order.name} on {_count(devices, fit.parts)}",
        python=order.options.engine_python,
        flags=tuple(_flags(order, devices, fit)),
        variables=tuple(_variables(order)),
        extra=order.extra,
        key=order.options.engine_api_key,
    )


def best(
    order: ServeOptions, devices: Sequence[Device], size: sizes.Size, *, quantised: bool
) -> Fit | None:
    """Return how the model lies on the most GPUs that it can be split over; None when it does not fit."""
    requested = order.given("--tp", "--tp-size", "--tensor-parallel-size") or ""
    for parts in (int(requested),) if requested.isdigit() else SPLITS:
        if parts <= len(devices) and size.splits(parts):
            fit = _lay(order, devices, size, parts=parts, quantised=quantised)
            return fit if fit.tokens >= _context(order) else None
    return None


def _context(order: ServeOptions) -> int:
    """Return the tokens of one whole context: with less cache than that, the longest job never runs."""
    requested = order.given("--context-length") or ""
    return int(requested) if requested.isdigit() else order.profile.context_tokens


def _share(devices: Sequence[Device]) -> float:
    """Return the part of each GPU that weights and caches may fill."""
    memory = min(device.memory for device in devices)
    return SHARES[0] if memory * (1 - SHARES[0]) >= SPARE else SHARES[1]


def _lay(
    order: ServeOptions, devices: Sequence[Device], size: sizes.Size, *, parts: int, quantised: bool
) -> Fit:
    """Return how the model lies on ``parts`` GPUs, whether or not there is room for a context."""
    memory = min(device.memory for device in devices)
    share = _share(devices)
    weights = size.weights * (FP8 if quantised else 1) / parts
    room = (memory * share - weights - VISION_CACHE / 1024) * parts
    halved = (order.given("--kv-cache-dtype") or "").startswith("fp8")
    token = size.token * (0.5 if halved else 1) / 2**20
    return Fit(parts=parts, share=share, weights=weights, tokens=max(0, math.floor(room / token)))


def _flags(order: ServeOptions, devices: Sequence[Device], fit: Fit) -> list[FlagReason]:
    """Return the flags with their reasons."""
    running = min(STREAMS, max(1, fit.tokens // STREAM_TOKENS))
    pixels = {
        "min_pixels": order.profile.min_pixels,
        "max_pixels": min(order.profile.max_pixels, profiles.DETAIL_TOKENS["max"] * TOKEN_PIXELS),
    }
    idle = len(devices) - fit.parts
    return [
        *common(order),
        FlagReason(
            "--tp",
            str(fit.parts),
            f"{fit.weights:.1f} GiB of weights on each GPU"
            + (f"; {idle} stay idle: only 1, 2, 4 or 8 can share a model" if idle else ""),
        ),
        FlagReason(
            "--mem-fraction-static",
            f"{fit.share:.2f}",
            f"weights, and a cache of {fit.tokens:,} tokens; SGLang's own guess leaves a quarter of "
            "the memory unused with QVQ",
        ),
        FlagReason(
            "--max-running-requests",
            str(running),
            f"streams at once, with {fit.tokens // running:,} tokens of cache each on average",
        ),
        FlagReason(
            "--chunked-prefill-size", "8192", "running streams get a turn after this many tokens"
        ),
        FlagReason("--max-prefill-tokens", "16384", "tokens of one prefill batch"),
        FlagReason(
            "--mm-process-config",
            json.dumps({"image": pixels}, separators=(",", ":")),
            "a net under the service's own resizing",
        ),
        FlagReason(
            "--image-processor-backend",
            "pil",
            "the decoder that the canonical image was made with; nvJPEG's colours differ",
        ),
        FlagReason(
            "--watchdog-timeout", "600", "seconds one step may take before the server gives up"
        ),
    ]


def _variables(order: ServeOptions) -> list[FlagReason]:
    """Return the variables with their reasons."""
    options = order.options
    return [
        FlagReason(
            "SGLANG_VLM_CACHE_SIZE_MB",
            str(VISION_CACHE),
            "the default of 100 holds 6,400 image tokens: a large image would be encoded again and again",
        ),
        FlagReason(
            "IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD",
            "256",
            "requests about one image that come together go behind the first; the default of 32 tokens is "
            "less than the system prompt that all have in common",
        ),
        FlagReason(
            "SGLANG_MAX_NEW_TOKENS_LIMIT",
            str(order.profile.max_output_tokens),
            "no answer is longer, whatever is asked for",
        ),
        FlagReason(
            "SGLANG_REQ_WAITING_TIMEOUT",
            f"{options.engine_first_token_seconds:.0f}",
            "the worker waits no longer (LONGLOOK_ENGINE_FIRST_TOKEN_SECONDS)",
        ),
        FlagReason(
            "SGLANG_REQ_RUNNING_TIMEOUT",
            str(options.deadline_seconds),
            "a stream that nobody reads ends (LONGLOOK_DEADLINE_SECONDS)",
        ),
        keep_alive(),
        *grammar_waits(),
    ]


def _advice(
    order: ServeOptions, devices: Sequence[Device], size: sizes.Size, *, quantised: bool
) -> str:
    """Return why the model does not fit, and what would."""
    weights = size.weights * (FP8 if quantised else 1)
    cache = _context(order) * size.token / 2**20
    fault = (
        f"{order.path} does not fit on {_count(devices, len(devices))}: it has {weights:.1f} GiB of "
        f"weights and needs {cache:.1f} GiB of cache, for which {_share(devices):.0%} of each GPU can be used."
    )
    if not quantised and best(order, devices, size, quantised=True):
        return f"{fault} With fp8 weights it fits: longlook engine -- --quantization fp8"
    if size == sizes.FAMILY["72B"]:
        fault += " It runs on 2 GPUs of 141 GB or 4 of 80 GB, and with fp8 weights on half of that."
    return fault


def _count(devices: Sequence[Device], number_of: int) -> str:
    """Return ``2 x NVIDIA H200 (140 GiB)``, by the smallest of the GPUs."""
    smallest = min(devices, key=lambda device: device.memory)
    return f"{number_of} x {smallest.name} ({smallest.memory:.0f} GiB)"
