"""How many cores a process may use. Imports no torch."""

import contextlib
import os
from pathlib import Path


def cores() -> int:
    """That this process may use: no more than its affinity and the quota of its container let it."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:  # no Linux
        return here
    return max(1, min(here, int(cpu_quota(Path("/sys/fs/cgroup"), groups))))


def cpu_quota(root: Path, groups: str) -> float:
    """Cores that control groups leave a process, the smallest quota of its groups and all above them; 2**31 without one.

    `root` is where the groups are mounted, `groups` what /proc/self/cgroup tells: ID:CONTROLLERS:PATH, a line each. Within a
    container PATH may be that of the machine outside, and the container's own group is `root`.
    Source: cgroups(7); cpu.max of version 2, cpu.cfs_quota_us and cpu.cfs_period_us of version 1.
    """
    quotas = [2.0**31]
    for _, controllers, path in (line.split(":", 2) for line in groups.splitlines()):
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        mount = root / controllers
        group = mount / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                with contextlib.suppress(OSError, ValueError):  # a group that says nothing, or nothing of numbers: max
                    quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
                    quotas.append(quota / period if quota > 0 else 2.0**31)
    return min(quotas)
