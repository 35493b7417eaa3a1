"""Facts about software, machine and places. A probe that fails says so in its section, and nothing else fails with it.

All values are what JSON holds; names that end in ``_bytes`` or ``_per_second`` say their unit. Heavy packages are
imported inside the probes, since one that cannot be imported is itself a finding.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cyborgs.doctor.gpus import gpus
from cyborgs.doctor.speeds import arithmetic, decoding, writing
from cyborgs.machine.cores import affinity_cores, cpu_flags, cpu_quota, installed_memory, memory_limit, usable_cores
from cyborgs.machine.disk import existing, free_bytes

Facts = dict[str, dict[str, Any]]

PACKAGES: Final = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "lightning-fabric": "lightning_fabric",
    "numpy": "numpy",
    "opencv": "cv2",
    "Pillow": "PIL",
    "simplejpeg": "simplejpeg",
    "safetensors": "safetensors",
    "tensorboard": "tensorboard",
}
"""Name -> module of what a run cannot do without."""

EXTRAS: Final = ("wandb", "mlflow", "faiss-cpu", "lightly", "pytest")
"""Distributions that are used where they are there."""

INSTRUCTIONS: Final = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16")
"""Flags of /proc/cpuinfo that decide about speed."""

VARIABLES: Final = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES"),
    *("GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_AFFINITY", "OMP_THREAD_LIMIT"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME"),
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MALLOC_ARENA_MAX", "TMPDIR", "XDG_CACHE_HOME"),
    *("SLURM_JOB_ID", "SLURM_NNODES", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE"),
    *("SLURM_GPUS_ON_NODE", "PYTHONHASHSEED", "PYTHONOPTIMIZE"),
)
"""Environment variables that change what a run does; the values of all others are nobody's business."""


@dataclass(frozen=True)
class Request:
    """What the doctor is asked to look at."""

    data: Path | None = None
    out: Path | None = None


def examine(request: Request) -> Facts:
    """All probes, one section each; a section of a probe that failed holds ``error`` alone."""
    facts: Facts = {}
    for name, probe in PROBES.items():
        try:
            facts[name] = probe(request)
        except Exception as error:  # whatever a driver, a mount or a broken package raises
            facts[name] = {"error": unreadable(error)}
    return facts


def unreadable(error: BaseException) -> str:
    """What is shown in the place of a value."""
    return f"could not be read: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def software(request: Request) -> dict[str, Any]:
    """Versions, or why a package cannot be imported."""
    found: dict[str, Any] = {"cyborgs": metadata.version("cyborgs"), "Python": platform.python_version()}
    for name, module in PACKAGES.items():
        try:
            found[name] = str(importlib.import_module(module).__version__)
        except Exception as error:
            found[name] = unreadable(error)
    names = {str(d.metadata["Name"]).lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    found["OpenCV packages"] = sorted(name for name in names if name.startswith("opencv-"))
    found["optional packages"] = [f"{name} {names[name]}" for name in EXTRAS if name in names]
    return found


def codecs(request: Request) -> dict[str, Any]:
    """Which pictures can be read, by what."""
    from PIL import features

    kinds = {"jpg": "JPEG", "webp": "WebP", "avif": "AVIF", "jpg_2000": "JPEG 2000", "libtiff": "TIFF"}
    found: dict[str, Any] = {
        "Pillow reads": [name for key, name in kinds.items() if features.check(key)],
        "Pillow lacks": [name for key, name in kinds.items() if not features.check(key)],
        "Pillow's JPEG": f"libjpeg-turbo {features.version('libjpeg_turbo')}"
        if features.check("libjpeg_turbo")
        else "libjpeg",
    }
    import cv2

    lines = cv2.getBuildInformation().splitlines()
    found["OpenCV's JPEG"] = next((line.split(":", 1)[1].strip() for line in lines if "JPEG:" in line), "none")
    return found


def system(request: Request) -> dict[str, Any]:
    """Operating system and how busy it is."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "C library": " ".join(platform.libc_ver()) or "unknown",
        "container": Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def processor(request: Request) -> dict[str, Any]:
    """Cores that there are, that may be used, and the threads that will use them."""
    flags = cpu_flags()
    found: dict[str, Any] = {
        "model": _model() or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "cores by affinity": affinity_cores(),
        "cores by quota": cpu_quota(),
        "usable cores": usable_cores(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
    }
    import torch

    found["torch threads"] = torch.get_num_threads()
    found["torch uses"] = torch.backends.cpu.get_cpu_capability()
    import cv2

    found["OpenCV threads"] = cv2.getNumThreads()
    return found


def _model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def memory(request: Request) -> dict[str, Any]:
    """Memory of the machine, of the control group, and that in which loader processes hand over their views."""
    found: dict[str, Any] = {"total_bytes": installed_memory()}
    if Path("/proc/meminfo").exists():
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        for key, name in (("MemAvailable", "available_bytes"), ("SwapTotal", "swap_bytes")):
            if key in lines:
                found[name] = 1024 * int(lines[key].split()[0])
    found["control group's limit_bytes"] = memory_limit()
    if Path("/dev/shm").exists():
        usage = shutil.disk_usage("/dev/shm")
        found |= {"/dev/shm_bytes": usage.total, "/dev/shm free_bytes": usage.free}
    return found


def processes(request: Request) -> dict[str, Any]:
    """How several processes could talk."""
    import torch.distributed as dist

    names = ("gloo", "nccl", "mpi")
    available = dist.is_available()
    return {"backends": [n for n in names if available and getattr(dist, f"is_{n}_available")()]}


def places(request: Request) -> dict[str, Any]:
    """The folders that runs write to: file system, free bytes, whether writing is allowed; speed where the run goes."""
    from cyborgs.data.scan_cache import default_cache

    wanted = {"temporary folder": Path(tempfile.gettempdir()), "cache": default_cache(".").parent}
    if request.out is not None:
        wanted["out"] = request.out
    found: dict[str, Any] = {}
    for name, path in wanted.items():
        try:
            found[name] = _place(path)
        except Exception as error:
            found[name] = {"path": str(path), "error": unreadable(error)}
    target = "out" if request.out is not None else "temporary folder"
    if found[target].get("writable"):
        found[target]["written_bytes_per_second"] = writing(existing(wanted[target]))
    return found


def _place(path: Path) -> dict[str, Any]:
    there = existing(path)
    found = {"path": str(path), "file system": file_system(there), "free_bytes": free_bytes(there)}
    try:
        # A folder that is a file is found here too; nothing is left behind.
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"cyborgs")
        return found | {"writable": True}
    except OSError as error:
        return found | {"writable": False, "why": error.strerror or str(error)}


def file_system(path: Path) -> str:
    """Type of the mount that a path lies on, as Linux names it: ext4, nfs4, tmpfs, ..."""
    real, best, kind = os.path.realpath(path), "", "unknown"
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        _, folder, name, *_ = line.split()
        folder = folder.replace("\\040", " ")
        if (real == folder or real.startswith(folder.rstrip("/") + "/")) and len(folder) >= len(best):
            best, kind = folder, name
    return kind


def photos(request: Request) -> dict[str, Any]:
    """How fast a built-in picture and some of the user's are decoded, one thread."""
    return decoding(request.data, file_system)


def speed(request: Request) -> dict[str, Any]:
    """Products of matrices and convolutions."""
    return arithmetic()


def limits(request: Request) -> dict[str, Any]:
    """What the system allows this process; None: no limit."""
    import resource

    names = {
        "open files": resource.RLIMIT_NOFILE,
        "processes": resource.RLIMIT_NPROC,
        "largest file_bytes": resource.RLIMIT_FSIZE,
        "address space_bytes": resource.RLIMIT_AS,
    }
    values = {name: resource.getrlimit(number)[0] for name, number in names.items()}
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in values.items()}


def environment(request: Request) -> dict[str, Any]:
    """The variables that change things, where they are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


PROBES: dict[str, Callable[[Request], dict[str, Any]]] = {
    "software": software,
    "codecs": codecs,
    "system": system,
    "processor": processor,
    "memory": memory,
    "GPUs": lambda request: gpus(),
    "processes": processes,
    "places": places,
    "photos": photos,
    "speed": speed,
    "limits": limits,
    "environment": environment,
}


def home_shortened(value: Any) -> Any:
    """The same facts with the home folder as ``~`` and the user's name gone from paths, for a public bug report."""
    if isinstance(value, dict):
        return {home_shortened(key): home_shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [home_shortened(item) for item in value]
    if not isinstance(value, str):
        return value
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    for path in (os.path.realpath(home), home):
        if len(path) > 1:
            value = value.replace(path, "~")
    user = Path(home).name
    parts = value.split("/")
    return "/".join("~" if user and part == user and len(parts) > 1 else part for part in parts)
