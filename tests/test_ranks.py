"""The layers stay layers: docs/design.md, the rooms of the house."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trioweb.errors

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(trioweb.errors.__file__).parent

# A module may import what has a lower number, and its own package. http stands below ws, and cli
# below testing, whose plugin finds an application as the command does.
RANKS: dict[str, float] = {
    "errors": 0,
    "config": 0.1,
    "types": 0,
    "net": 1,
    "http": 2,
    "response": 2.1,
    "ws": 2.5,
    "routing": 3,
    "rooms": 3,
    "client": 3,
    "server": 4,
    "app": 5,
    "testing": 6.5,
    "cli": 6,
    "__main__": 7,
    "__init__": 5.5,
}

SANS_IO = [
    "client/frame.py",
    "http/http1.py",
    "ws/close.py",
    "ws/deflate.py",
    "ws/encoding.py",
    "ws/extensions.py",
    "ws/frames.py",
    "ws/handshake.py",
    "ws/mask.py",
    "ws/messages.py",
    "ws/rate.py",
]

STDLIB_ONLY = ["config.py", "types.py"]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def rank_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, under TYPE_CHECKING as well."""
    package = ["trioweb", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield module
            # `from trioweb import ws` imports a submodule.
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_a_higher_rank(path: Path) -> None:
    """A row imports the rows below it, never above and never beside."""
    own = rank_name(path)
    assert own in RANKS, f"give {own} a rank here and in docs/design.md"
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] != "trioweb" or len(parts) < 2 or parts[1] not in RANKS or parts[1] == own:
            continue
        assert RANKS[parts[1]] < RANKS[own], f"{path} must not import {module}"


@pytest.mark.parametrize("name", SANS_IO)
def test_sans_io_never_imports_trio(name: str) -> None:
    """Parsing knows nothing of waiting; transports and parsers meet in one place each."""
    path = PACKAGE / name
    roots = {module.split(".")[0] for module in imported_modules(path)}
    assert "trio" not in roots
    below = {module for module in imported_modules(path) if module.startswith("trioweb.net")}
    assert not below


@pytest.mark.parametrize("name", STDLIB_ONLY)
def test_foundations_need_the_standard_library_only(name: str) -> None:
    """Whatever imports the config or the types gets nothing else with them."""
    roots = {module.split(".")[0] for module in imported_modules(PACKAGE / name)}
    assert not roots & {"trio", "h11", "msgspec", "trio_websocket", "wsaccel"}


def test_msgspec_is_imported_in_one_module() -> None:
    """Its releases lag new Pythons, so the way out must be one module wide."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(module.split(".")[0] == "msgspec" for module in imported_modules(path))
    }
    assert users <= {"http/jsoncodec.py"}
