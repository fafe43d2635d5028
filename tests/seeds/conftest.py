"""Loads the seed documents' programs, which live in ``apps/`` one file each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from types import ModuleType

APPS = Path(__file__).parent / "apps"


class LoadSeed(Protocol):
    def __call__(self, name: str) -> Any: ...


@pytest.fixture
def load_seed() -> LoadSeed:
    """A fresh module of ``apps/<name>.py`` at each call, so that no state outlives a test."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"seed_{name}", APPS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
