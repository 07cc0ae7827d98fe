"""The engine of a machine without a GPU: the same SGLang, with a model that two cores can serve."""

from __future__ import annotations

from pathlib import Path

from cli.engine.command import FlagReason, Plan, ServeOptions, common, grammar_waits, keep_alive
from cli.environments import engine

#: Streams at once: two cores gain little from more.
STREAMS = 16


def plan(order: ServeOptions) -> Plan:
    """Return the command for the CPU."""
    flags = [
        *common(order),
        FlagReason("--device", "cpu", "no NVIDIA GPU is used"),
        FlagReason(
            "--attention-backend", "torch_native", "the one that needs neither CUDA nor AMX"
        ),
        FlagReason("--dtype", "float32", "several times faster than bfloat16 on a CPU"),
        FlagReason(
            "--max-running-requests", str(STREAMS), "streams at once; workers ask for no more"
        ),
        FlagReason(
            "--max-total-tokens",
            str(2 * STREAMS * order.profile.context_tokens),
            "cache for twice what can run, so that prefixes stay; by default it takes most of the RAM",
        ),
        FlagReason(
            "--sleep-on-idle", "", "an idle scheduler takes 1 % of a core instead of all of it"
        ),
    ]
    variables = [
        FlagReason(
            "OMP_NUM_THREADS", "1", "more threads make this small model several times slower"
        ),
        FlagReason(
            "TORCHDYNAMO_DISABLE",
            "1",
            "compiling would delay the first answer by 20 s and want g++",
        ),
        keep_alive(),
        *grammar_waits(),
    ]
    if Path(order.path).is_dir():
        variables.append(
            FlagReason("HF_HUB_OFFLINE", "1", "the checkpoint is here: nothing is fetched")
        )
    return Plan(
        title=f"{order.name} on the CPU",
        python=order.options.engine_python or engine.python(order.options.home),
        flags=tuple(flags),
        variables=tuple(variables),
        extra=order.extra,
        key=order.options.engine_api_key,
    )
