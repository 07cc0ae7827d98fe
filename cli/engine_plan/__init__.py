"""The SGLang command that fits this machine: devices, sizes of checkpoints, flags and their reasons."""
