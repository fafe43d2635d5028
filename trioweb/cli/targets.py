"""What a TARGET of the command line names: a file or a module, and the application in it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from trioweb.app import TrioWeb
from trioweb.errors import TrioWebError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


class TargetError(Exception):
    """The TARGET of the command line names no application."""


def load_target(target: str) -> TrioWeb:
    """The application that a TARGET names.

    Args:
        target: a file's path, or a module, either with ``:name`` of the application behind it.
            Without a name it is ``app``, or the only application of the module.

    Raises:
        TargetError: there is no such file, module or application, or importing it failed.
    """
    place, _, name = target.partition(":")
    if place.endswith(".py") or os.sep in place:
        module = _import(target, lambda: _import_file(Path(place)))
    else:
        # As `python -m` does: what lies in the working directory can be imported.
        _prepend_path(Path.cwd())
        module = _import(target, lambda: importlib.import_module(place))
    return _find_app(module, place, name)


def _find_app(module: ModuleType, place: str, name: str) -> TrioWeb:
    if name:
        found: object = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, TrioWeb):
            return found
        if found is None:
            raise TargetError(f"{place} has nothing that is named {name}")
        raise TargetError(f"{place}:{name} is no TrioWeb application, but a {type(found).__name__}")
    app = getattr(module, "app", None)
    if isinstance(app, TrioWeb):
        return app
    apps = {key: value for key, value in vars(module).items() if isinstance(value, TrioWeb)}
    if len(set(map(id, apps.values()))) == 1:
        return next(iter(apps.values()))
    if apps:
        choices = ", ".join(f"{place}:{key}" for key in apps)
        raise TargetError(f"{place} has several applications, name one: {choices}")
    raise TargetError(f"{place} has no TrioWeb application at its top level")


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"there is no file {path}")
    # Beside the file are the modules that it imports, as when Python runs it as a script.
    _prepend_path(path.resolve().parent)
    # A file json.py must not stand in for the module of that name.
    taken = path.stem in sys.modules or path.stem in sys.stdlib_module_names
    name = f"trioweb_target_{path.stem}" if taken else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Annotations are resolved, and dataclasses made, by way of sys.modules.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _prepend_path(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _import(target: str, load: Callable[[], ModuleType]) -> ModuleType:
    """Imports a target and tells what went wrong in terms of the command line."""
    try:
        return load()
    except TargetError:
        raise
    except SyntaxError as error:
        raise TargetError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and target.partition(":")[0].startswith(error.name):
            raise TargetError(f"there is no module {error.name}, nor a file {target}") from error
        raise TargetError(f"can't import {target}: {error}{_where(error)}") from error
    except TrioWebError as error:
        raise TargetError(f"{error}{_where(error)}") from error
    except Exception as error:
        traceback.print_exception(error)
        raise TargetError(f"can't import {target}: {type(error).__name__}") from error


def _where(error: BaseException) -> str:
    """The user's line that an error of ours, or of the import system, goes back to."""
    own = Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<frozen") and own not in Path(frame.filename).parents:
            return f" (at {frame.filename}:{frame.lineno})"
    return ""
