"""Limits of control groups, of both versions, and the cores that are left."""

from __future__ import annotations

from pathlib import Path

import pytest

import cyborgs
from cyborgs.machine import cores as machine


def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, files: dict[str, str]) -> None:
    """A machine whose control groups hold these files, for a process whose /proc/self/cgroup says ``own``."""
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = tmp_path / "cgroup"
    said.write_text(own)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_GROUPS", said)


def test_version_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n", "a/memory.max": "3000000000\n"}
    groups(monkeypatch, tmp_path, "0::/a/b\n", files)
    assert machine.cpu_quota() == 1.5
    assert machine.memory_limit() == 3_000_000_000


def test_version_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "cpu/job/cpu.cfs_quota_us": "400000",
        "cpu/job/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "-1",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
        "memory/job/memory.limit_in_bytes": str(5 * 10**9),
    }
    groups(monkeypatch, tmp_path, "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n", files)
    assert machine.cpu_quota() == 4.0
    assert machine.memory_limit() == 5 * 10**9


def test_a_container_sees_its_group_as_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    groups(monkeypatch, tmp_path, "0::/docker/0123\n", {"cpu.max": "200000 100000", "memory.max": "max"})
    assert machine.cpu_quota() == 2.0
    assert machine.memory_limit() is None


def test_no_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    groups(monkeypatch, tmp_path, "0::/\n", {})
    assert machine.cpu_quota() is None
    assert machine.usable_cores() == machine.affinity_cores()


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("350000 100000", 4), ("9900000 100000", 6)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cores: int) -> None:
    monkeypatch.setattr(machine, "affinity_cores", lambda: 6)
    groups(monkeypatch, tmp_path, "0::/\n", {"cpu.max": quota})
    assert machine.usable_cores() == cores


def test_cores_and_memory_are_asked_for_in_one_place() -> None:
    """Others would miss the limits of a control group."""
    root = Path(cyborgs.__file__).parent
    asks = ("sched_getaffinity", "SC_PHYS_PAGES", "cpu.max", "memory.max")
    found = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if any(word in file.read_text(encoding="utf-8") for word in asks)
    }
    assert found == {"machine/cores.py", "machine/memory.py"}


def test_the_quota_of_the_control_group_bounds_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from cyborgs.features.threads import threads_by_default
    from cyborgs.masks import source

    monkeypatch.setattr("cyborgs.machine.cores.affinity_cores", lambda: 8)
    monkeypatch.setattr("cyborgs.machine.cores.cpu_quota", lambda: 2.0)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert source.cores() == 2
    assert threads_by_default() == 2
