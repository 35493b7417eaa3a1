"""Methods of this package and of other distributions, found by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cyborgs.errors import UserError
from cyborgs.methods import registry
from cyborgs.methods.byol.method import Byol
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.settings import MethodConfig
from tests.methods.distributions import install

SETTINGS = """
from dataclasses import dataclass
from cyborgs.methods.settings import MethodConfig

@dataclass(frozen=True)
class Odd(MethodConfig):
    width: int = 3

SETTINGS = Odd
"""


def folder(tmp_path: Path, module: str, settings: str = SETTINGS) -> Path:
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text("")
    (tmp_path / module / "settings.py").write_text(settings)
    return tmp_path


def test_methods_of_this_package() -> None:
    assert registry.settings_of("byol") is ByolConfig
    assert registry.method_class("byol") is Byol
    assert registry.name_of(ByolConfig()) == "byol"
    assert registry.names()[:2] == ["cyborgs", "byol"]
    assert registry.name_of(registry.default_settings()) == "cyborgs"


def test_a_method_of_another_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder(tmp_path, "odd_one"), "odd-method", {"odd": "odd_one"}, monkeypatch)
    settings = registry.settings_of("odd")
    assert settings(width=4).width == 4  # type: ignore[call-arg]
    assert registry.name_of(settings()) == "odd"
    assert "odd" in registry.names()
    with pytest.raises(UserError, match=r"'odd' of odd-method \(odd_one\): odd_one.method cannot be loaded"):
        registry.method_class("odd")


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ("raises", "raise OSError('no such disk')", r"OSError: no such disk"),
        ("lacks", "", r"has no attribute 'SETTINGS'"),
        ("other", "SETTINGS = int", r"other.settings.SETTINGS is no subclass of MethodConfig"),
    ],
)
def test_one_that_fails_names_its_distribution(
    module: str, settings: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder(tmp_path, f"odd_{module}", settings), "odd-method", {"odd": f"odd_{module}"}, monkeypatch)
    with pytest.raises(UserError, match=rf"of odd-method \(odd_{module}\): .*{message}"):
        registry.settings_of("odd")


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder(tmp_path, "odd_three"), "odd-method", {"byol": "odd_three"}, monkeypatch)
    with pytest.raises(UserError, match=r"'byol': odd-method \(odd_three\) brings a method of a name that is taken"):
        registry.settings_of("byol")
    assert registry.settings_of("cyborgs")


def test_two_distributions_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder(tmp_path, "odd_four"), "first", {"odd": "odd_four"}, monkeypatch)
    install(tmp_path, "second", {"odd": "odd_five"}, monkeypatch)
    with pytest.raises(UserError, match=r"(first|second) .* and (first|second) .* bring it"):
        registry.settings_of("odd")


def test_unknown_names_and_settings_say_what_there_is() -> None:
    with pytest.raises(UserError, match=r"no method is named 'simsiam'. There are: cyborgs, byol"):
        registry.settings_of("simsiam")
    with pytest.raises(UserError, match=r"MethodConfig: the folder cyborgs.methods is not registered"):
        registry.name_of(MethodConfig())


@pytest.mark.parametrize("name", registry.METHODS)
def test_settings_load_no_torch(name: str) -> None:
    code = f"import sys; from cyborgs.methods import registry as r; r.settings_of({name!r})(); r.names(); "
    assert (
        subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=False).returncode == 0
    )
