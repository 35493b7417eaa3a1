"""What is slow or wrong, why, and what to do: pure functions of the facts. A fact that could not be read finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cyborgs.doctor.finding import Finding
from cyborgs.doctor.probes import PACKAGES, Facts

NETWORK: Final = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.sshfs",
    "glusterfs",
)
"""File systems that answer over a network."""


def findings(facts: Facts) -> list[Finding]:
    """All of them, what makes runs impossible first."""
    found = [finding for rule in RULES for finding in _safely(rule, facts)]
    return sorted(found, key=lambda finding: ("impossible", "slow", "note").index(finding.level))


def _safely(rule: Callable[[Facts], Iterator[Finding]], facts: Facts) -> list[Finding]:
    try:
        return list(rule(facts))
    except (TypeError, ValueError, AttributeError) as error:  # a fact of another shape than expected
        name = rule.__name__.strip("_")
        return [Finding("note", f"The facts of {name} could not be judged: {error}.", "Look at them by eye.")]


def _packages(facts: Facts) -> Iterator[Finding]:
    software = facts.get("software", {})
    for name in PACKAGES:
        value = str(software.get(name, ""))
        if value.startswith("could not be read"):
            yield Finding(
                "impossible",
                f"{name} cannot be imported ({value.removeprefix('could not be read: ')}).",
                f"Install it again: pip install --force-reinstall {'opencv-contrib-python-headless' if name == 'opencv' else name}",
            )
    several = software.get("OpenCV packages", [])
    if len(several) > 1:
        yield Finding(
            "slow",
            f"{len(several)} OpenCV packages are installed ({', '.join(several)}): they write to the same folder, and "
            "which one is imported is chance.",
            f"pip uninstall {' '.join(several)}, then pip install opencv-contrib-python-headless",
        )


def _codecs(facts: Facts) -> Iterator[Finding]:
    lacking = facts.get("codecs", {}).get("Pillow lacks", [])
    if lacking:
        yield Finding(
            "note",
            f"This Pillow reads no {', '.join(lacking)}: such photos are skipped.",
            "Install Pillow's own wheel: pip install --force-reinstall Pillow",
        )


def _threads(facts: Facts) -> Iterator[Finding]:
    processor, variables = facts.get("processor", {}), facts.get("environment", {})
    cores, threads = processor.get("usable cores"), processor.get("torch threads")
    if cores and threads and threads > cores:
        yield Finding(
            "slow",
            f"torch would use {threads} threads on {cores} usable cores: they wait for each other.",
            f"Set OMP_NUM_THREADS={cores}.",
        )
    gpu = facts.get("GPUs", {}).get("usable")
    if cores and threads and threads < cores / 2 and not gpu:
        yield Finding(
            "slow",
            f"torch would use {threads} of {cores} usable cores.",
            f"Unset OMP_NUM_THREADS, or set it to {cores}.",
        )
    quota, affinity = processor.get("cores by quota"), processor.get("cores by affinity")
    if quota and affinity and quota < affinity:
        yield Finding(
            "note",
            f"A quota of {quota:g} cores holds for this process, though it sees {affinity}: what goes beyond is made to wait.",
            f"Set OMP_NUM_THREADS and --workers so that they need no more than {max(1, round(quota))} together.",
        )
    if str(variables.get("OMP_WAIT_POLICY", "")).lower() == "active" or variables.get("KMP_BLOCKTIME", "0") not in (
        "0",
        "1",
    ):
        yield Finding(
            "slow",
            "OpenMP's threads spin while they wait, and take the cores from the loader's processes.",
            "Unset OMP_WAIT_POLICY and KMP_BLOCKTIME.",
        )
    if str(variables.get("OMP_PROC_BIND", "false")).lower() != "false" or "GOMP_CPU_AFFINITY" in variables:
        yield Finding(
            "slow",
            "OpenMP's threads are bound to cores; loader processes inherit the first one's core and crowd there.",
            "Unset OMP_PROC_BIND and GOMP_CPU_AFFINITY.",
        )
    model = facts.get("system", {}).get("architecture")
    if model in ("x86_64", "AMD64") and "avx2" not in processor.get("instructions", ["avx2"]):
        yield Finding(
            "slow",
            "This processor (or virtual machine) has no AVX2: networks are several times slower.",
            "Use another.",
        )


def _load(facts: Facts) -> Iterator[Finding]:
    cores = facts.get("processor", {}).get("usable cores")
    load = facts.get("system", {}).get("load", [0.0])[0]
    if cores and load > cores + 1:
        yield Finding(
            "slow",
            f"The machine is busy: a load of {load:g} on {cores} usable cores. The speeds here, and of a run, suffer.",
            "Look who it is (top), or wait.",
        )


def _memory(facts: Facts) -> Iterator[Finding]:
    memory = facts.get("memory", {})
    total = min((v for k in ("total_bytes", "control group's limit_bytes") if (v := memory.get(k))), default=None)
    if total is not None and total < 2e9:
        yield Finding(
            "impossible" if total < 1e9 else "slow",
            f"There are {total / 1e9:.1f} GB of memory; the smallest recipe needs about 1.5 GB.",
            "Use a machine, or a control group, with more.",
        )
    shared = memory.get("/dev/shm_bytes")
    if shared is not None and shared < 1e9:
        yield Finding(
            "slow",
            f"/dev/shm holds {shared / 1e6:.0f} MB: loader processes hand over their views in it, and die with "
            "a bus error when it is full.",
            "In Docker give --shm-size=8g (or --ipc=host); elsewhere mount it larger; or use --workers 0.",
        )


def _gpus(facts: Facts) -> Iterator[Finding]:
    gpus, variables = facts.get("GPUs", {}), facts.get("environment", {})
    there, usable, cuda = gpus.get("seen by the driver"), gpus.get("usable"), gpus.get("torch's CUDA")
    if there and not usable:
        name = there[0]
        if variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            yield Finding("slow", f"CUDA_VISIBLE_DEVICES hides the GPU ({name}).", "Unset it.")
        elif cuda is None:
            yield Finding(
                "slow",
                f"This torch is built for CPUs alone, and the machine has a GPU ({name}).",
                "Install torch for CUDA: https://pytorch.org/get-started/locally",
            )
        else:
            yield Finding(
                "slow",
                f"torch cannot use the GPU ({name}): it is built for CUDA {cuda}, and driver {gpus.get('driver')} is "
                "probably too old for it.",
                "Update the driver, or install a torch for an older CUDA.",
            )
    for gpu in gpus.get("seen by torch", []):
        if not gpu["kernels"]:
            yield Finding(
                "note",
                f"torch has no kernels built for {gpu['name']} (capability {gpu['capability']}): it compiles them at the "
                "start, or fails.",
                "Install a torch whose CUDA knows this GPU.",
            )
        if gpu["free_bytes"] < 0.5 * gpu["memory_bytes"]:
            yield Finding(
                "slow",
                f"Others hold {(gpu['memory_bytes'] - gpu['free_bytes']) / 1e9:.1f} GB of the memory of {gpu['name']}.",
                "Look who it is (nvidia-smi), or choose another with CUDA_VISIBLE_DEVICES.",
            )
    if variables.get("CUDA_LAUNCH_BLOCKING") == "1":
        yield Finding("slow", "CUDA_LAUNCH_BLOCKING makes the CPU wait for every kernel.", "Unset it.")
    backends = facts.get("processes", {}).get("backends")
    wanted = "nccl" if usable else "gloo"
    if backends is not None and wanted not in backends:
        yield Finding("note", f"This torch has no {wanted}: torchrun will not work.", "Install torch's own wheel.")


def _places(facts: Facts) -> Iterator[Finding]:
    places = facts.get("places", {})
    for name, place in places.items():
        if not isinstance(place, dict) or "path" not in place:
            continue
        path, kind = place["path"], place.get("file system", "")
        if place.get("writable") is False:
            harm = {
                "out": ("impossible", "a run cannot be written there", "Give another --out, or mend its permissions."),
                "cache": (
                    "slow",
                    "every run reads all photos anew",
                    "Set XDG_CACHE_HOME to a folder that can be written.",
                ),
            }.get(name, ("impossible", "torch and the loader need it", "Set TMPDIR to a folder that can be written."))
            yield Finding(harm[0], f"{path} ({name}) cannot be written to: {place.get('why')}; {harm[1]}.", harm[2])  # type: ignore[arg-type]
        if name == "temporary folder" and kind in NETWORK:
            yield Finding(
                "slow", f"The temporary folder {path} lies on a network ({kind}).", "Set TMPDIR to a local folder."
            )
        if name == "out" and kind in NETWORK:
            yield Finding(
                "note",
                f"{path} lies on a network ({kind}): checkpoints are as quick as it is, and locks as good.",
                "Prefer a local disk where there is one.",
            )
        if name == "out" and kind in ("tmpfs", "ramfs"):
            yield Finding(
                "note", f"{path} lies in memory ({kind}): it is gone after a restart.", "Give an --out on a disk."
            )
        free = place.get("free_bytes")
        if name == "out" and free is not None and free < 2e9:
            yield Finding(
                "impossible" if free < 1e8 else "slow",
                f"{free / 1e9:.2f} GB are free at {path}; the smallest recipe holds about 0.5 GB, the paper's several.",
                "Make room, or give an --out on another disk. cyborgs pretrain ... --dry-run says what a recipe needs.",
            )
        quick = place.get("written_bytes_per_second")
        if quick is not None and quick < 20e6:
            yield Finding(
                "slow",
                f"{quick / 1e6:.0f} MB a second reach the disk at {path}: a checkpoint of ResNet-50 (400 MB) takes "
                f"{400e6 / max(quick, 1):.0f} s.",
                "Give an --out on a quicker disk, or raise --checkpoint-every.",
            )


def _photos(facts: Facts) -> Iterator[Finding]:
    photos = facts.get("photos", {})
    if "problem" in photos:
        yield Finding("impossible", f"{photos['data']}: {photos['problem']}.", "Give a folder of photos as --data.")
    for text in photos.get("unreadable", [])[:3]:
        yield Finding("note", f"A photo cannot be read and will be skipped: {text}.", "Replace or remove it.")
    megapixels = photos.get("megapixels, median")
    if megapixels is not None and megapixels > 2:
        yield Finding(
            "slow",
            f"The photos have {megapixels:.0f} megapixels: decoding them takes most of the loader's time "
            f"({photos['photos decoded_per_second']} a second and core).",
            "Shrink them once, to a short side of 500 pixels or so.",
        )
    if photos.get("file system") in NETWORK:
        yield Finding(
            "note",
            f"The photos lie on a network ({photos['file system']}).",
            "Copy them to a local disk where they fit.",
        )


def _limits(facts: Facts) -> Iterator[Finding]:
    limits = facts.get("limits", {})
    files = limits.get("open files")
    if files is not None and files < 1024:
        yield Finding(
            "slow",
            f"{files} files may be open at once: loader processes need one for each tensor on its way.",
            "ulimit -n 4096, before the run.",
        )
    largest = limits.get("largest file_bytes")
    if largest is not None and largest < 1e9:
        yield Finding(
            "slow",
            f"No file may be larger than {largest / 1e6:.0f} MB here: checkpoints of large networks cannot be written.",
            "ulimit -f unlimited, before the run.",
        )
    if limits.get("address space_bytes") is not None:
        yield Finding(
            "slow",
            f"The address space is limited to {limits['address space_bytes'] / 1e9:.1f} GB: torch reserves far more than it uses.",
            "ulimit -v unlimited, before the run.",
        )


RULES: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    _packages,
    _codecs,
    _threads,
    _load,
    _memory,
    _gpus,
    _places,
    _photos,
    _limits,
)
