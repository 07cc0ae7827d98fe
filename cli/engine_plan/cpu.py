"""The engine for a machine without a GPU: SGLang with a model that two cores can serve."""

from pathlib import Path

from cli.engine_plan.command import (
    FlagReason,
    Plan,
    ServeOptions,
    common,
    grammar_polling,
    keep_alive,
)
from cli.environments import engine

#: Concurrent streams; two cores gain little from more.
STREAMS = 16


def plan(serve: ServeOptions) -> Plan:
    """Return the command for the CPU."""
    flags = [
        *common(serve),
        FlagReason("--device", "cpu", "no NVIDIA GPU is used"),
        FlagReason("--attention-backend", "torch_native", "needs neither CUDA nor AMX"),
        FlagReason("--dtype", "float32", "several times faster than bfloat16 on a CPU"),
        FlagReason(
            "--max-running-requests", str(STREAMS), "concurrent streams; workers use no more"
        ),
        FlagReason(
            "--max-total-tokens",
            str(2 * STREAMS * serve.profile.context_tokens),
            "cache for twice the concurrent streams, to keep prefixes; the default takes most of the RAM",
        ),
        FlagReason(
            "--sleep-on-idle", "", "an idle scheduler uses 1% of a core instead of all of it"
        ),
    ]
    variables = [
        FlagReason(
            "OMP_NUM_THREADS", "1", "more threads make this small model several times slower"
        ),
        FlagReason(
            "TORCHDYNAMO_DISABLE",
            "1",
            "compilation would delay the first answer by 20 s and needs g++",
        ),
        keep_alive(),
        *grammar_polling(),
    ]
    if Path(serve.path).is_dir():
        variables.append(
            FlagReason("HF_HUB_OFFLINE", "1", "the checkpoint is local: download nothing")
        )
    return Plan(
        title=f"{serve.name} on the CPU",
        python=serve.options.engine_python or engine.python(serve.options.home),
        flags=tuple(flags),
        variables=tuple(variables),
        extra=serve.extra,
        key=serve.options.engine_api_key,
    )
