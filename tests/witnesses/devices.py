"""The compiler's flags for a process of its own with another number of devices."""

import os
import re

COUNT = "--xla_force_host_platform_device_count"


def flags(devices: int) -> str:
    """The flags of this process, which compile fast (conftest), for so many devices."""
    return f"{re.sub(rf'{COUNT}=[0-9]+', '', os.environ['XLA_FLAGS'])} {COUNT}={devices}".strip()
