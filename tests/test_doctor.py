"""``cyborgs doctor``: every finding from made-up facts, probes that fail, nothing private, on this machine in seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyborgs.cli import main
from cyborgs.doctor import probes, speeds
from cyborgs.doctor.findings import NETWORK, findings
from cyborgs.doctor.page import plain
from cyborgs.doctor.probes import Facts, Request

Said = Callable[..., tuple[int, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run the doctor with facts of a healthy machine, sections of which are replaced; exit code and text."""

    def run(*argv: str, **sections: dict[str, Any]) -> tuple[int, str]:
        for name, values in (HEALTHY | sections).items():
            monkeypatch.setitem(probes.PROBES, name, lambda request, values=values: values)
        code = main(["doctor", *argv])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return code, captured.out

    return run


HEALTHY: Facts = {
    "software": {**dict.fromkeys(probes.PACKAGES, "1.0"), "OpenCV packages": ["opencv-contrib-python-headless"]},
    "codecs": {"Pillow lacks": []},
    "system": {"architecture": "x86_64", "load": [0.1, 0.2, 0.3]},
    "processor": {
        "cores by affinity": 8,
        "cores by quota": None,
        "usable cores": 8,
        "torch threads": 8,
        "instructions": ["avx", "avx2"],
    },
    "memory": {"total_bytes": 64 * 10**9, "control group's limit_bytes": None, "/dev/shm_bytes": 32 * 10**9},
    "GPUs": {"driver": None, "seen by the driver": [], "torch's CUDA": None, "usable": False, "seen by torch": []},
    "processes": {"backends": ["gloo"]},
    "places": {
        "temporary folder": {"path": "/tmp", "file system": "ext4", "writable": True},
        "cache": {"path": "~/.cache/cyborgs", "file system": "ext4", "writable": True},
        "out": {
            "path": "/runs",
            "file system": "ext4",
            "writable": True,
            "free_bytes": 10**12,
            "written_bytes_per_second": 10**9,
        },
    },
    "photos": {"data": "/photos", "file system": "ext4", "megapixels, median": 0.3, "photos decoded_per_second": 400.0},
    "speed": {"device": "cpu"},
    "limits": {"open files": 4096, "processes": None, "largest file_bytes": None, "address space_bytes": None},
    "environment": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def place(name: str, **changes: Any) -> dict[str, Any]:
    places = HEALTHY["places"]
    return {**places, name: {**places[name], **changes}}


def section(name: str, **changes: Any) -> dict[str, Any]:
    return {**HEALTHY[name], **changes}


GPU = {
    "name": "NVIDIA X",
    "capability": "9.0",
    "memory_bytes": 80 * 10**9,
    "free_bytes": 79 * 10**9,
    "bf16": True,
    "kernels": True,
}

CASES: list[tuple[str, dict[str, dict[str, Any]], int, str, str]] = [
    ("broken package", {"software": section("software", timm="could not be read: ImportError: no")}, 1, "timm cannot be imported (ImportError: no)", "--force-reinstall timm"),
    ("two OpenCVs", {"software": section("software", **{"OpenCV packages": ["opencv-python", "opencv-contrib-python-headless"]})}, 0, "2 OpenCV packages", "pip uninstall opencv-python"),
    ("codec", {"codecs": {"Pillow lacks": ["WebP"]}}, 0, "reads no WebP", "Pillow"),
    ("threads", {"processor": section("processor", **{"torch threads": 64})}, 0, "64 threads on 8 usable cores", "OMP_NUM_THREADS=8"),
    ("few threads", {"processor": section("processor", **{"torch threads": 1})}, 0, "1 of 8 usable cores", "Unset OMP_NUM_THREADS"),
    ("quota", {"processor": section("processor", **{"cores by quota": 1.5})}, 0, "quota of 1.5 cores", "no more than 2 together"),
    ("spin", {"environment": {"OMP_WAIT_POLICY": "active"}}, 0, "spin while they wait", "Unset OMP_WAIT_POLICY"),
    ("blocktime", {"environment": {"KMP_BLOCKTIME": "200"}}, 0, "spin while they wait", "KMP_BLOCKTIME"),
    ("bound", {"environment": {"OMP_PROC_BIND": "true"}}, 0, "bound to cores", "Unset OMP_PROC_BIND"),
    ("no AVX2", {"processor": section("processor", instructions=["avx"])}, 0, "no AVX2", "another"),
    ("busy", {"system": section("system", load=[20.0, 1.0, 1.0])}, 0, "a load of 20 on 8", "top"),
    ("little memory", {"memory": section("memory", **{"control group's limit_bytes": 5 * 10**8})}, 1, "0.5 GB of memory", "with more"),
    ("shared memory", {"memory": section("memory", **{"/dev/shm_bytes": 64 * 2**20})}, 0, "/dev/shm holds 67 MB", "--shm-size"),
    ("torch for CPUs", {"GPUs": section("GPUs", **{"seen by the driver": ["NVIDIA X, 8 GiB"]})}, 0, "built for CPUs alone", "pytorch.org"),
    ("old driver", {"GPUs": section("GPUs", **{"seen by the driver": ["NVIDIA X, 8 GiB"], "torch's CUDA": "13.0", "driver": "470"})}, 0, "built for CUDA 13.0, and driver 470", "Update the driver"),
    ("hidden GPU", {"GPUs": section("GPUs", **{"seen by the driver": ["NVIDIA X, 8 GiB"], "torch's CUDA": "13.0"}), "environment": {"CUDA_VISIBLE_DEVICES": ""}}, 0, "CUDA_VISIBLE_DEVICES hides", "Unset it"),
    ("full GPU", {"GPUs": section("GPUs", usable=True, **{"seen by torch": [GPU | {"free_bytes": 10**9}]}), "processes": {"backends": ["nccl"]}}, 0, "Others hold 79.0 GB", "nvidia-smi"),
    ("no kernels", {"GPUs": section("GPUs", usable=True, **{"seen by torch": [GPU | {"kernels": False}]}), "processes": {"backends": ["nccl"]}}, 0, "no kernels built for NVIDIA X", "whose CUDA"),
    ("no nccl", {"GPUs": section("GPUs", usable=True)}, 0, "no nccl", "torch's own wheel"),
    ("blocking", {"environment": {"CUDA_LAUNCH_BLOCKING": "1"}}, 0, "CUDA_LAUNCH_BLOCKING", "Unset it"),
    ("read-only out", {"places": place("out", writable=False, why="Permission denied")}, 1, "/runs (out) cannot be written to: Permission denied", "another --out"),
    ("read-only cache", {"places": place("cache", writable=False, why="Read-only file system")}, 0, "every run reads all photos anew", "XDG_CACHE_HOME"),
    ("read-only tmp", {"places": place("temporary folder", writable=False, why="No space left")}, 1, "torch and the loader need it", "TMPDIR"),
    ("tmp on NFS", {"places": place("temporary folder", **{"file system": "nfs4"})}, 0, "lies on a network (nfs4)", "TMPDIR"),
    ("out on NFS", {"places": place("out", **{"file system": "nfs"})}, 0, "checkpoints are as quick", "local disk"),
    ("out in memory", {"places": place("out", **{"file system": "tmpfs"})}, 0, "lies in memory", "on a disk"),
    ("little room", {"places": place("out", free_bytes=10**9)}, 0, "1.00 GB are free at /runs", "--dry-run"),
    ("no room", {"places": place("out", free_bytes=10**7)}, 1, "0.01 GB are free", "Make room"),
    ("slow disk", {"places": place("out", written_bytes_per_second=4 * 10**6)}, 0, "4 MB a second", "--checkpoint-every"),
    ("no photos", {"photos": {"data": "/photos", "problem": "no photos there"}}, 1, "/photos: no photos there", "--data"),
    ("damaged photo", {"photos": section("photos", unreadable=["a.jpg: truncated"])}, 0, "a.jpg: truncated", "Replace or remove"),
    ("large photos", {"photos": section("photos", **{"megapixels, median": 24.0})}, 0, "24 megapixels", "Shrink them"),
    ("photos on NFS", {"photos": section("photos", **{"file system": "nfs4"})}, 0, "photos lie on a network", "Copy them"),
    ("few files", {"limits": section("limits", **{"open files": 256})}, 0, "256 files may be open", "ulimit -n"),
    ("short files", {"limits": section("limits", **{"largest file_bytes": 10**8})}, 0, "larger than 100 MB", "ulimit -f"),
    ("address space", {"limits": section("limits", **{"address space_bytes": 8 * 10**9})}, 0, "limited to 8.0 GB", "ulimit -v"),
]  # fmt: skip


def test_a_healthy_machine(said: Said) -> None:
    code, text = said()
    assert code == 0
    assert text.rstrip().endswith("Nothing was found.")
    assert findings(HEALTHY) == []


@pytest.mark.parametrize(("sections", "code", "what", "do"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_finding(said: Said, sections: dict[str, Any], code: int, what: str, do: str) -> None:
    found, text = said(**sections)
    assert found == code
    closing = text.split("What is slow or wrong")[1]
    assert what in closing
    assert do in closing
    assert len(findings(HEALTHY | sections)) == 1


@pytest.mark.parametrize("name", probes.PROBES)
def test_a_probe_that_fails_is_said_and_nothing_else_fails(
    said: Said, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(request: Request) -> dict[str, Any]:
        raise OSError(5, "Input/output error")

    for section_name, values in HEALTHY.items():
        monkeypatch.setitem(probes.PROBES, section_name, lambda request, values=values: values)
    monkeypatch.setitem(probes.PROBES, name, broken)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"{name}\n  error: could not be read: OSError: [Errno 5] Input/output error" in text
    assert text.rstrip().endswith("Nothing was found.")


def test_facts_of_another_shape_are_no_traceback(said: Said) -> None:
    code, text = said(memory={"total_bytes": "many"}, system={"architecture": "x86_64", "load": None})
    assert code == 0
    assert "The facts of memory could not be judged" in text
    assert "The facts of load could not be judged" in text


def test_this_machine(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All real probes; the secret, the user's name and the home folder are in neither text nor file."""
    home = tmp_path / "people" / "ada-lovelace"
    (home / "photos").mkdir(parents=True)
    for photo in photos.iterdir():
        photo.rename(home / "photos" / photo.name)
    (home / "photos" / "damaged.jpg").write_bytes(b"\xff\xd8\xff no picture")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("SLURM_JOB_ID", "12\x1b[31m34")
    monkeypatch.setattr(speeds, "SECONDS", 0.5)
    out, file = home / "runs" / "first", tmp_path / "doctor.json"
    before = sorted(home.rglob("*"))
    begun = time.perf_counter()
    code = main(["doctor", "--data", str(home / "photos"), "--out", str(out), "--json", str(file)])
    assert time.perf_counter() - begun < 60  # 15 on a machine that is not busy
    captured = capsys.readouterr()
    assert code == 0, captured.out
    text, document = captured.out, json.loads(file.read_text())
    assert sorted(home.rglob("*")) == before
    for whole in (text, file.read_text()):
        assert "hunter2" not in whole
        assert "ada-lovelace" not in whole
        assert "\x1b" not in whole
    assert "~/runs/first" in text
    assert "SLURM_JOB_ID: 12\\x1b[31m34" in text
    assert "damaged.jpg" in text
    facts = document["facts"]
    assert not [name for name, values in facts.items() if "error" in values], facts
    assert facts["software"]["torch"].startswith("2.")
    assert facts["processor"]["torch threads"] == 1
    assert facts["memory"]["total_bytes"] > 10**9
    assert "gloo" in facts["processes"]["backends"]
    assert facts["places"]["out"]["written_bytes_per_second"] > 0
    assert facts["photos"]["photos tried"] == 23
    assert facts["photos"]["photos decoded_per_second"] > 1
    assert facts["speed"]["1024 x 1024 product, fp32, GFLOP/s"] > 0.1
    assert facts["limits"]["open files"] > 0
    assert {"level", "what", "do"} == set(document["findings"][0])


def test_an_out_that_cannot_be(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    facts = probes.examine(Request(out=file))
    assert facts["places"]["out"]["writable"] is False
    assert [f.level for f in findings({"places": facts["places"]})] == ["impossible"]


def test_data_that_is_not_there(tmp_path: Path) -> None:
    def kind(path: Path) -> str:
        return "ext4"

    assert speeds.decoding(tmp_path / "none", kind)["problem"] == "no such folder or file"
    (tmp_path / "a.txt").write_text("# nothing\n")
    assert speeds.decoding(tmp_path, kind)["problem"] == "no photos there"
    (tmp_path / "a.png").write_text("no picture")
    found = speeds.decoding(tmp_path, kind)
    assert found["problem"] == "no photo could be read"
    assert found["unreadable"][0].startswith("a.png: not an image")
    (tmp_path / "list").write_text("# one\nb.png\n")
    assert speeds.decoding(tmp_path / "list", kind)["unreadable"][0].startswith("b.png")


def test_file_systems_by_their_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\ntmpfs /home/x\\040y tmpfs rw 0 0\nbad /homes cifs rw 0 0\n"
    )
    real = Path

    def path(*parts: str) -> Path:
        return mounts if parts == ("/proc/mounts",) else real(*parts)

    monkeypatch.setattr(probes, "Path", path)
    kinds = [probes.file_system(real(p)) for p in ("/etc", "/home", "/home/a/b", "/home/x y/z", "/homes/a")]
    assert kinds == ["ext4", "nfs4", "nfs4", "tmpfs", "cifs"]
    assert set(kinds) & set(NETWORK) == {"nfs4", "cifs"}


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probes.PACKAGES, "timm", "no_such_module_of_ours")
    found = probes.software(Request())
    assert found["timm"].startswith("could not be read: ModuleNotFoundError")
    assert found["numpy"][0].isdigit()


def test_control_characters_are_shown() -> None:
    assert plain("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"
    assert plain("Über 漢字") == "Über 漢字"


def test_the_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "WRITTEN", 8 * 2**20)
    assert speeds.writing(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
