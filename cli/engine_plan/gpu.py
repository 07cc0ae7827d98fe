"""The engine for a machine with NVIDIA GPUs: QVQ-72B-Preview, or another model of the Qwen2-VL family.

For each GPU, ``memory x fraction`` is the memory for its share of the weights, the vision cache and the key-value
cache; the rest is for activations. The key-value cache divided by the KiB per token is the number of tokens that all
running streams share.
"""

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
    grammar_polling,
    keep_alive,
)
from cli.engine_plan.devices import Device
from core import errors, profiles

#: Numbers of GPUs that one engine can use.
SPLITS = (8, 4, 2, 1)
#: GiB outside the pool: activations of the vision tower, CUDA graphs and the tokenizer's process.
SPARE = 12
#: The pool's share of a GPU: the larger one if it leaves ``SPARE``, or else the smaller one.
SHARES = (0.88, 0.85)
#: MiB of each GPU for the embeddings of images, taken from the pool. A token takes 16 KiB: 2048 MiB hold 131,072.
VISION_CACHE = 2048
#: Most concurrent streams, and the average tokens of each when all of them run.
STREAMS, STREAM_TOKENS = 64, 5120
#: Size of fp8 weights relative to bf16: ``--quantization fp8`` leaves embeddings and vision tower unchanged.
FP8 = 72 / 136.7


@dataclass(frozen=True)
class Fit:
    """The placement of a model: the number of GPUs, the memory shares, and the tokens of cache."""

    parts: int
    share: float
    weights: float
    tokens: int


def plan(serve: ServeOptions, devices: Sequence[Device]) -> Plan:
    """Return the command for these GPUs.

    Raises:
        core.errors.LaunchError: the model does not fit on them.
    """
    size = sizes.measure(serve.path)
    quantized = serve.value_of("--quantization") == "fp8"
    fit = best(serve, devices, size, quantized=quantized)
    if fit is None:
        raise errors.LaunchError(_advice(serve, devices, size, quantized=quantized))
    return Plan(
        title=f"{serve.name} on {_count(devices, fit.parts)}",
        python=serve.options.engine_python,
        flags=tuple(_flags(serve, devices, fit)),
        variables=tuple(_variables(serve)),
        extra=serve.extra,
        key=serve.options.engine_api_key,
    )


def best(
    serve: ServeOptions, devices: Sequence[Device], size: sizes.Size, *, quantized: bool
) -> Fit | None:
    """Return the placement on as many GPUs as possible, or None if the model does not fit."""
    tensor_parallel = serve.value_of("--tp", "--tp-size", "--tensor-parallel-size") or ""
    for parts in (int(tensor_parallel),) if tensor_parallel.isdigit() else SPLITS:
        if parts <= len(devices) and size.splits(parts):
            fit = _place(serve, devices, size, parts=parts, quantized=quantized)
            return fit if fit.tokens >= _context(serve) else None
    return None


def _context(serve: ServeOptions) -> int:
    """Return the tokens of a full context: with a smaller cache, the longest job would never run."""
    length = serve.value_of("--context-length") or ""
    return int(length) if length.isdigit() else serve.profile.context_tokens


def _share(devices: Sequence[Device]) -> float:
    """Return the share of each GPU for weights and caches."""
    memory = min(device.memory for device in devices)
    return SHARES[0] if memory * (1 - SHARES[0]) >= SPARE else SHARES[1]


def _place(
    serve: ServeOptions, devices: Sequence[Device], size: sizes.Size, *, parts: int, quantized: bool
) -> Fit:
    """Return the placement on ``parts`` GPUs, even if its cache is too small for a context."""
    memory = min(device.memory for device in devices)
    share = _share(devices)
    weights = size.weights * (FP8 if quantized else 1) / parts
    free = (memory * share - weights - VISION_CACHE / 1024) * parts
    halved = (serve.value_of("--kv-cache-dtype") or "").startswith("fp8")
    token = size.token * (0.5 if halved else 1) / 2**20
    return Fit(parts=parts, share=share, weights=weights, tokens=max(0, math.floor(free / token)))


def _flags(serve: ServeOptions, devices: Sequence[Device], fit: Fit) -> list[FlagReason]:
    running = min(STREAMS, max(1, fit.tokens // STREAM_TOKENS))
    pixels = {
        "min_pixels": serve.profile.min_pixels,
        "max_pixels": min(
            serve.profile.max_pixels, profiles.DETAIL_TOKENS["max"] * profiles.TOKEN_PIXELS
        ),
    }
    idle = len(devices) - fit.parts
    return [
        *common(serve),
        FlagReason(
            "--tp",
            str(fit.parts),
            f"{fit.weights:.1f} GiB of weights on each GPU"
            + (f"; {idle} stay idle: only 1, 2, 4 or 8 can share a model" if idle else ""),
        ),
        FlagReason(
            "--mem-fraction-static",
            f"{fit.share:.2f}",
            f"weights, and a cache of {fit.tokens:,} tokens; SGLang's default leaves a quarter of "
            "the memory unused with QVQ",
        ),
        FlagReason(
            "--max-running-requests",
            str(running),
            f"concurrent streams, with {fit.tokens // running:,} tokens of cache each on average",
        ),
        FlagReason(
            "--chunked-prefill-size",
            "8192",
            "tokens of prefill between two steps of running streams",
        ),
        FlagReason("--max-prefill-tokens", "16384", "tokens of one prefill batch"),
        FlagReason(
            "--mm-process-config",
            json.dumps({"image": pixels}, separators=(",", ":")),
            "a safeguard in case an image is not resized by the service",
        ),
        FlagReason(
            "--image-processor-backend",
            "pil",
            "the decoder that made the canonical image; colors of nvJPEG differ",
        ),
        FlagReason(
            "--watchdog-timeout", "600", "seconds that one step may take before the server exits"
        ),
    ]


def _variables(serve: ServeOptions) -> list[FlagReason]:
    options = serve.options
    return [
        FlagReason(
            "SGLANG_VLM_CACHE_SIZE_MB",
            str(VISION_CACHE),
            "the default of 100 holds 6,400 image tokens: a large image would be encoded repeatedly",
        ),
        FlagReason(
            "IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD",
            "256",
            "concurrent requests about one image wait for the first; the default of 32 tokens is "
            "shorter than the system prompt that all requests share",
        ),
        FlagReason(
            "SGLANG_MAX_NEW_TOKENS_LIMIT",
            str(serve.profile.max_output_tokens),
            "upper bound of every answer, whatever the request says",
        ),
        FlagReason(
            "SGLANG_REQ_WAITING_TIMEOUT",
            f"{options.engine_first_token_seconds:.0f}",
            "the worker waits no longer (LONGLOOK_ENGINE_FIRST_TOKEN_SECONDS)",
        ),
        FlagReason(
            "SGLANG_REQ_RUNNING_TIMEOUT",
            str(options.deadline_seconds),
            "an unread stream ends (LONGLOOK_DEADLINE_SECONDS)",
        ),
        keep_alive(),
        *grammar_polling(),
    ]


def _advice(
    serve: ServeOptions, devices: Sequence[Device], size: sizes.Size, *, quantized: bool
) -> str:
    """Return the reason why the model does not fit, and what would fit."""
    weights = size.weights * (FP8 if quantized else 1)
    cache = _context(serve) * size.token / 2**20
    fault = (
        f"{serve.path} does not fit on {_count(devices, len(devices))}: it needs {weights:.1f} GiB for "
        f"weights and {cache:.1f} GiB for the cache; {_share(devices):.0%} of each GPU is usable."
    )
    if not quantized and best(serve, devices, size, quantized=True):
        return f"{fault} It fits with fp8 weights: longlook engine -- --quantization fp8"
    if size == sizes.FAMILY["72B"]:
        fault += " It runs on 2 GPUs of 141 GB or 4 of 80 GB, or on half as many with fp8 weights."
    return fault


def _count(devices: Sequence[Device], number_of: int) -> str:
    """Return, for example, ``2 x NVIDIA H200 (140 GiB)`` with the memory of the smallest GPU."""
    smallest = min(devices, key=lambda device: device.memory)
    return f"{number_of} x {smallest.name} ({smallest.memory:.0f} GiB)"
