"""The GPUs of this machine."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any


def gpus() -> dict[str, Any]:
    """What the driver sees, and what torch does."""
    found: dict[str, Any] = {"driver": None, "seen by the driver": []}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=False)
        rows = [line.split(", ") for line in answer.stdout.splitlines() if line.count(", ") == 2]
        if rows:
            found["driver"] = rows[0][0]
        found["seen by the driver"] = [f"{name}, {size}" for _, name, size in rows]
    import torch

    found["torch's CUDA"] = torch.version.cuda
    found["usable"] = torch.cuda.is_available()
    found["seen by torch"] = []
    for index in range(torch.cuda.device_count() if found["usable"] else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        kernels = f"sm_{properties.major}{properties.minor}"
        found["seen by torch"].append(
            {
                "name": properties.name,
                "memory_bytes": total,
                "free_bytes": free,
                "capability": f"{properties.major}.{properties.minor}",
                "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
                "kernels": kernels in torch.cuda.get_arch_list(),
            }
        )
    return found
