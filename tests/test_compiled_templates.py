"""Templates are compiled once, and later runs read them as they were compiled, or compile them again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tinyedge.kernels.compiled import DIGEST_BYTES, CompiledTemplates

TEXTS = {"sum.cl": "{{ a }} + {{ b }}", "parts/product.cl": "{{ a }} * {{ b }}"}


class Run(jinja2.Environment):
    """A process's templates; ``compiled`` are the names of those that it compiled itself."""

    def __init__(self, texts: dict[str, str] = TEXTS) -> None:
        super().__init__(loader=jinja2.DictLoader(texts), bytecode_cache=CompiledTemplates())
        self.compiled: list[str | None] = []

    def compile(self, source: Any, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        self.compiled.append(name)
        return super().compile(source, name, *args, **kwargs)

    def text(self, name: str) -> str:
        return self.get_template(name).render(a=1, b=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYEDGE_CACHE", str(tmp_path))
    return tmp_path / "templates"


def test_a_later_run_compiles_nothing(folder: Path) -> None:
    for compiled in (list(TEXTS), []):
        run = Run()
        assert [run.text(name) for name in TEXTS] == ["1 + 2", "1 * 2"]
        assert run.compiled == compiled


def test_a_text_that_changed_is_compiled(folder: Path) -> None:
    Run().text("sum.cl")
    run = Run({"sum.cl": "{{ a }} - {{ b }}"})
    assert run.text("sum.cl") == "1 - 2"
    assert run.compiled == ["sum.cl"]


@pytest.mark.parametrize("damage", ["empty", "short", "a byte", "another's", "writable by others", "a folder"])
def test_a_file_that_cannot_be_trusted_is_not_used(folder: Path, damage: str) -> None:
    if damage == "writable by others" and os.name != "posix":
        pytest.skip("permissions as POSIX has them")
    Run().text("sum.cl")
    Run({"other.cl": TEXTS["sum.cl"]}).text("other.cl")
    path, other = (next(folder.glob(f"{name}.cl*")) for name in ("sum", "other"))
    content = bytearray(path.read_bytes())
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "writable by others":
        path.chmod(0o666)
    else:
        content[-9] ^= 1
        changed = {"empty": b"", "short": content[: DIGEST_BYTES + 20], "another's": other.read_bytes()}
        path.write_bytes(changed.get(damage, bytes(content)))
    run = Run()
    assert run.text("sum.cl") == "1 + 2"
    assert run.compiled == ["sum.cl"]


@pytest.mark.parametrize("way", ["a file in the folder's place", "switched off"])
def test_nothing_need_be_kept(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "switched off":
        monkeypatch.setenv("TINYEDGE_BINARIES", "0")
    else:
        folder.write_text("")
    for _ in range(2):
        run = Run()
        assert run.text("sum.cl") == "1 + 2"
        assert run.compiled == ["sum.cl"]
    assert not folder.is_dir()
