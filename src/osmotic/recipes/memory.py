"""How much memory there is left to train in."""

from __future__ import annotations

from pathlib import Path

import torch

MEMINFO, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free(device: torch.device) -> int | None:
    """Bytes that this process may still take on a device; None where the system does not say.

    On a CPU the smaller of what Linux calls available and what the process's control group (a container's) leaves.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [bytes_ for bytes_ in (_available(), _left()) if bytes_ is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


def _left() -> int | None:
    try:
        most, used, stat = ((GROUP / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        counts = dict(line.split() for line in stat.splitlines())
        # Files that were read lie in "current" too, until somebody needs the place. "max" is no number: no limit.
        return int(most) - int(used) + int(counts["inactive_file"])
    except (OSError, KeyError, ValueError):
        return None
