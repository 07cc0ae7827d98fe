"""Chooses the model that this machine serves, and the command that serves it."""

from collections.abc import Sequence

from cli.engine_plan import cpu, gpu, sizes
from cli.engine_plan.command import Plan, ServeOptions
from cli.engine_plan.devices import Device
from core import errors, profiles, settings
from models import CHECKPOINT


def plan(
    devices: Sequence[Device],
    options: settings.Settings,
    *,
    host: str,
    port: int,
    model_path: str = "",
    extra: Sequence[str] = (),
) -> Plan:
    """Return the command for these devices.

    If neither ``LONGLOOK_MODEL`` nor a path names a model, a machine with GPUs serves QVQ-72B-Preview and a machine
    without them serves tiny-qvq. tiny-qvq runs on the CPU even on a machine with GPUs.

    Raises:
        core.errors.LaunchError: this machine cannot serve the model; the message names one that it can serve.
    """
    path = model_path or options.engine_model_path
    configured = "model" in options.model_fields_set
    name = options.model if configured or not devices else profiles.QVQ.name
    profile = options.profile if configured or not devices else options.profile_of("qvq")
    is_tiny = profile.name == profiles.TINY.name
    if not devices and not is_tiny and not path:
        raise errors.LaunchError(
            f"{name} needs NVIDIA GPUs, but none is usable. Without LONGLOOK_MODEL, this machine "
            "serves tiny-qvq on its CPU."
        )
    on_cpu = not devices or (is_tiny and not path)
    serve = ServeOptions(
        options=options,
        name=name,
        profile=profile,
        path=path or (str(CHECKPOINT) if on_cpu else sizes.QVQ),
        host=host,
        port=port,
        extra=tuple(extra),
    )
    return cpu.plan(serve) if on_cpu else gpu.plan(serve, devices)
