"""What a result was made with: versions, hardware, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import lt_jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it computes with."""
    found = {"python": platform.python_version(), "lt_jax": lt_jax.__version__}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name)
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def hardware(num_devices: int | None = None) -> dict[str, Any]:
    """Kind and number of the devices in use, the CPU and its cores."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": num_devices or len(devices),
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str | None:
    """The git commit of the checkout the package runs from, with ``-dirty`` if it was changed.

    None for an installed package.
    """
    root = Path(lt_jax.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def command_line() -> str:
    """The command that started this process."""
    return shlex.join([Path(sys.executable).name, *sys.argv])


def stamp(num_devices: int | None = None) -> dict[str, Any]:
    """Command, commit, versions and hardware: what every result is kept with."""
    return {
        "command": command_line(),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(num_devices),
    }
