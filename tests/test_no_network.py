"""Nothing leaves this machine: the guard of the tests is tight, and a run needs no network at all."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cyborgs.runs.recipe_file import to_text
from tests.conftest import Attempts, tiny_recipe
from tests.no_network.sitecustomize import NetworkRefused

AWAY = "192.0.2.1"  # reserved for documentation: routed nowhere
WAYS = {
    "connect": f"socket.socket().connect(('{AWAY}', 9))",
    "connect_ex": f"socket.socket().connect_ex(('{AWAY}', 9))",
    "create_connection": f"socket.create_connection(('{AWAY}', 9), timeout=1)",
    "IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 9))",
    "UDP": f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{AWAY}', 9))",
    "name": "socket.getaddrinfo('example.org', 80)",
    "old name": "socket.gethostbyname('example.org')",
    "urllib": "__import__('urllib.request').request.urlopen('http://example.org', timeout=1)",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_this_process_cannot_leave(way: str, network_attempts: Attempts) -> None:
    with pytest.raises(NetworkRefused, match="no network"):
        exec(WAYS[way], {"socket": socket})
    assert network_attempts.take()


@pytest.mark.parametrize("way", ["connect_ex", "urllib"])
def test_nor_can_one_that_it_starts(way: str, network_attempts: Attempts) -> None:
    code = f"import socket\ntry:\n    {WAYS[way]}\nexcept Exception:\n    pass"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "tests use no network" in done.stderr
    assert len(network_attempts.take()) == 1


def test_one_that_is_caught_still_fails_the_test(network_attempts: Attempts) -> None:
    code = f"import socket\ntry:\n    {WAYS['connect']}\nexcept BaseException:\n    pass"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0
    assert network_attempts.take() == [f"socket.connect ('{AWAY}', 9)"]  # what the fixture would have found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_open(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taker = threading.Thread(target=lambda: server.accept()[0].close())
        taker.start()
        socket.create_connection((host, port), timeout=5).close()
        taker.join()


def test_so_are_sockets_with_a_path(tmp_path: Path) -> None:
    place = os.path.relpath(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(place)
        server.listen()
        client.connect(place)


@pytest.mark.slow
def test_a_run_where_there_is_no_network(photos: Path, tmp_path: Path) -> None:
    """Pretraining, segmenting and the report in a network namespace of their own, where not even loopback is up."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a user have a network namespace (unshare --map-root-user --net)")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_text(tiny_recipe(epochs=2)), encoding="utf-8")
    run, masks = tmp_path / "run", tmp_path / "masks"
    for command in (
        ["pretrain", recipe, "--data", photos, "--out", run],
        ["segment", photos, "--backbone", run, "--out", masks, "--clusters", "4"],
        ["report", run, "--data", photos],
    ):
        argv = [*alone, sys.executable, "-m", "cyborgs", *map(str, command)]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
    assert (run / "backbone.safetensors").is_file()
    assert len(list((masks / "labels").iterdir())) == 22
    page = (run / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!data:|\#)|url\(["']?http|@import""", page)
