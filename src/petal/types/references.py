"""Objects by name: `package.module:name`, looked for beside a file first and on `sys.path` then.

A module beside the file keeps its own name (`steps`), so types that it defines are saved under a name that does not
depend on the machine. Only where the process already has another module of that name is it loaded as part of a package
made for its folder, so that the `steps.py` of two agents never mix. Either way it stays in `sys.modules`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from petal.errors import AgentConfigurationError, nearest

_REFERENCE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_PACKAGES = "petal_folders"

_importing = threading.RLock()
_folders: set[Path] = set()


def is_reference(text: str) -> bool:
    """Whether `text` has the form `package.module:name`."""
    return _REFERENCE.fullmatch(text) is not None


def resolve(reference: str, *, folder: Path | None = None) -> Any:
    """The object that a reference names.

    Args:
        reference: `package.module:name`; the name may have dots, e.g. `shop.orders:Order.total`.
        folder: Where modules are looked for first: the folder of the file that holds the reference.

    Raises:
        AgentConfigurationError: If the text is no reference, there is no such module or name in it, or importing the
            module raised; the exception is then the cause.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        module, dot, name = reference.rpartition(".")
        example = f"{module}:{name}" if dot and is_reference(f"{module}:{name}") else "package.module:name"
        raise AgentConfigurationError(f"{reference!r} is no reference; write it as {example!r}.")
    found: Any = _module(match["module"], folder.absolute() if folder is not None else None)
    parts = match["name"].split(".")
    for index, part in enumerate(parts):
        try:
            found = getattr(found, part)
        except AttributeError:
            known = [name for name in dir(found) if not name.startswith("_")]
            guess = nearest(part, known)
            hint = f" Did you mean {guess!r}?" if guess else ""
            inner = ".".join(parts[:index])
            holder = f"{match['module']}:{inner}" if inner else match["module"]
            raise AgentConfigurationError(f"{holder!r} has no {part!r}.{hint}") from None
    return found


def _module(name: str, folder: Path | None) -> ModuleType:
    importlib.invalidate_caches()
    try:
        with _importing:
            if folder is None or not _lies_in(folder, name):
                return importlib.import_module(name)
            qualified = name if _is_free(name, folder) else f"{_package(folder)}.{name}"
            with _importable(folder):
                return importlib.import_module(qualified)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error
        known = [path.stem for path in folder.glob("*.py")] if folder is not None else []
        guess = nearest(name, [*known, *sys.modules])
        hint = f" Did you mean {guess!r}?" if guess else ""
        beside = "beside the file or " if folder is not None else ""
        raise AgentConfigurationError(f"There is no module {name!r} {beside}on sys.path.{hint}") from None
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> AgentConfigurationError:
    return AgentConfigurationError(f"Importing {name!r} raised {type(error).__name__}: {error}")


def _lies_in(folder: Path, name: str) -> bool:
    return any(path.is_file() for path in _files(folder.joinpath(*name.split("."))))


def _files(module: Path) -> tuple[Path, Path]:
    return module.with_name(f"{module.name}.py"), module / "__init__.py"


def _is_free(name: str, folder: Path) -> bool:
    """Whether the module's plain name leads into the folder, or nowhere as yet."""
    top = name.partition(".")[0]
    if top in sys.modules:
        places = _places(getattr(sys.modules[top], "__spec__", None))
    else:
        spec = importlib.util.find_spec(top)
        if spec is None:
            return True
        places = _places(spec)
    return not places.isdisjoint({folder / top, *_files(folder / top)})


def _places(spec: ModuleSpec | None) -> set[Path]:
    if spec is None:
        return set()
    origin = [spec.origin] if spec.has_location and spec.origin else []
    return {Path(place).absolute() for place in (*origin, *(spec.submodule_search_locations or ()))}


def _package(folder: Path) -> str:
    """The name of a package whose modules are the folder's files."""
    label = re.sub(r"\W", "_", folder.name)
    name = f"{_PACKAGES}.{label}_{hashlib.sha256(bytes(folder)).hexdigest()[:8]}"
    for package, path in ((_PACKAGES, []), (name, [str(folder)])):
        if package not in sys.modules:
            spec = ModuleSpec(package, None, is_package=True)
            spec.submodule_search_locations = path
            sys.modules[package] = importlib.util.module_from_spec(spec)
    return name


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder's modules can import each other by their plain names, whatever another folder's are called."""
    _folders.add(folder)
    tops = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    own = {place for top in tops for place in (folder / top, *_files(folder / top))}
    others = {other / top for other in _folders - {folder} for top in tops}
    theirs = {place for other in others for place in (other, *_files(other))} - own
    loaded = {top: getattr(sys.modules[top], "__spec__", None) for top in tops if top in sys.modules}
    foreign = {top for top, spec in loaded.items() if not theirs.isdisjoint(_places(spec))}
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in foreign}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in foreign]:
            del sys.modules[name]
        sys.modules.update(hidden)
