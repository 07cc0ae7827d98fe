"""Which model this machine serves, and by which command."""

from __future__ import annotations

from collections.abc import Sequence

from cli.engine import cpu, gpu, sizes
from cli.engine.command import Plan, ServeOptions
from cli.engine.devices import Device
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

    Where neither ``LONGLOOK_MODEL`` nor a path says what to serve, GPUs get QVQ-72B-Preview and a machine
    without them gets tiny-qvq. tiny-qvq runs on the CPU even beside GPUs.

    Raises:
        core.errors.LaunchError: the model cannot be served here; the message says what could.
    """
    path = model_path or options.engine_model_path
    requested = "model" in options.model_fields_set
    name = options.model if requested or not devices else profiles.QVQ.name
    profile = options.profile if requested or not devices else profiles.QVQ
    is_tiny = profile is profiles.TINY
    if not devices and not is_tiny and not path:
        raise errors.LaunchError(
            f"{name} needs NVIDIA GPUs, and none is usable here. Without LONGLOOK_MODEL this machine "
            "serves tiny-qvq on its CPU."
        )
    on_cpu = not devices or (is_tiny and not path)
    order = ServeOptions(
        options=options,
        name=name,
        profile=profile,
        path=path or (str(CHECKPOINT) if on_cpu else sizes.QVQ),
        host=host,
        port=port,
        extra=tuple(extra),
    )
    return cpu.plan(order) if on_cpu else gpu.plan(order, devices)
