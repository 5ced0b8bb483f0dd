"""How much memory there is, and how much of it this process may still take."""

import os
from pathlib import Path

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)  # version 2, version 1


def total_memory() -> int:
    """Bytes of this machine, or of its container where that has a limit."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [Path(limit).read_text().strip() for limit, *_ in _CGROUPS if Path(limit).exists()]
    return min([whole, *(int(limit) for limit in limits if limit != "max")])


def available_memory() -> int:
    """Bytes: what the kernel calls available, or what the container's limit leaves where that is less."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for limit, usage, stat, cache in _CGROUPS:
        if Path(limit).exists() and (most := Path(limit).read_text().strip()) != "max":
            counters = dict(line.split() for line in Path(stat).read_text().splitlines())
            used = int(Path(usage).read_text()) - int(counters.get(cache, 0))  # the kernel drops file caches at need
            return min(free, int(most) - used)
    return free
