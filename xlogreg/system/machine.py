"""What this machine is called, and what is installed on it."""

import contextlib
import platform
from importlib import metadata


def processor_name() -> str:
    """The processor's name as people know it, or its architecture."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown processor"


def version_of(package: str) -> str | None:
    """That is installed, if any is."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
