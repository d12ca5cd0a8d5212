"""Records what importing a module does, so that it can be repeated without executing the module.

python_worker.py executes this in one namespace with python_preload.py.
"""

from __future__ import annotations

import _frozen_importlib
import atexit
import builtins
import os
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import ModuleSpec
    from typing import Any

importlib: Any = _frozen_importlib
mutable_warnings: Any = warnings
environ: Any = os.environ
LISTS = ((warnings, "filters"), (sys, "meta_path"), (sys, "path_hooks"), (sys, "path"))
MAPPINGS: tuple[Any, ...] = (environ._data, vars(sys), vars(builtins))
"""What imports are known to change besides sys.modules."""


def _look() -> tuple[list[list[Any]], list[dict[Any, Any]]]:
    return [list(getattr(*of)) for of in LISTS], [dict(mapping) for mapping in MAPPINGS]


def _change_list(of: tuple[Any, str], front: list[Any], back: list[Any], gone: list[Any]) -> None:
    there: list[Any] = getattr(*of)
    there[:] = [*front, *(item for item in there if item not in gone), *back]
    if of[0] is warnings:
        mutable_warnings._filters_mutated()


def _change_mapping(mapping: Any, put: dict[Any, Any], gone: Iterable[Any]) -> None:
    mapping.update(put)
    for key in gone:
        mapping.pop(key, None)
    if mapping is environ._data:
        for key, value in put.items():
            os.putenv(key, value)
        for key in gone:
            os.unsetenv(key)


def _again(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _changes(before: Any, after: Any) -> list[Callable[[], None]]:
    """Functions that repeat the changes between two results of `_look`."""
    found: list[Callable[[], None]] = []
    for of, old, new in zip(LISTS, before[0], after[0], strict=True):
        if old != new:
            added = [item for item in new if item not in old]
            gone = [item for item in old if item not in new]
            kept = next((at for at, item in enumerate(new) if item in old), 0)
            front, back = added[:kept], added[kept:]
            found.append(_again(_change_list, of, front, back, gone))
    for mapping, was, now in zip(MAPPINGS, before[1], after[1], strict=True):
        if was != now:
            put = {key: value for key, value in now.items() if key not in was or was[key] is not value}
            lost = was.keys() - now.keys()
            found.append(_again(_change_mapping, mapping, put, lost))
    return found


class Record:
    """A module, how it was found, and what its import did, in order: names of modules, and changes."""

    def __init__(self, spec: ModuleSpec | None) -> None:
        self.spec = spec
        self.module: Any = None
        self.log: list[str | Callable[[], object]] = []
        self.is_bound = False


class Recorder:
    """Records each module that is loaded inside the context."""

    def __init__(self, known: Iterable[str], stashed: Iterable[str]) -> None:
        self.records: dict[str, Record] = {}
        self._outside = frozenset(known)
        self._stashed = frozenset(stashed)
        self._known = {*self._outside, *self._stashed}
        self._stack = [Record(None)]
        self._is_on = True
        self._seen = _look()
        self._true = builtins.__import__, importlib._load_unlocked, atexit.register

    def __enter__(self) -> Recorder:
        self._at_start = self._seen
        self._put(self._import, self._load, self._register)
        self._seen = _look()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_on = False
        self._put(*self._true)
        lists, mappings = self._at_start
        for (owner, name), items in zip(LISTS, lists, strict=True):
            getattr(owner, name)[:] = items
        mutable_warnings._filters_mutated()
        for mapping, now, items_ in zip(MAPPINGS, _look()[1], mappings, strict=True):
            _change_mapping(mapping, items_, now.keys() - items_.keys())
        del self._seen, self._at_start  # a module that kept __import__ keeps this

    def _put(self, import_: Any, load: Any, register: Any) -> None:
        builtins.__import__ = import_
        importlib._load_unlocked = load
        atexit.register = register

    def _settle(self) -> None:
        """Attribute all changes since the last call to the innermost module."""
        seen = _look()
        self._stack[-1].log += _changes(self._seen, seen)
        self._seen = seen

    def _need(self, name: str) -> None:
        log = self._stack[-1].log
        if name not in self._outside and name not in log:
            log.append(name)

    def _load(self, spec: ModuleSpec) -> Any:
        self._settle()
        self._need(spec.name)
        record = Record(spec)
        self._stack.append(record)
        self._known.add(spec.name)
        try:
            module = self._true[1](spec)
        except BaseException:
            self._leave()
            self._stack[-1].log += record.log
            raise
        self._leave()
        if spec.name not in self._stashed:
            self.records[spec.name] = record
        return module

    def _leave(self) -> None:
        self._settle()
        for name in sys.modules.keys() - self._known:  # the module put it there itself
            self._known.add(name)
            spec = getattr(sys.modules[name], "__spec__", None)
            self.records[name] = Record(spec if spec and spec.name == name else None)
            self._need(name)
        self._stack.pop()

    def _import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        module = self._true[0](name, globals, locals, fromlist, level)
        if level:
            package = importlib._calc___package__(globals)
            name = importlib._resolve_name(name, package, level)
        self._need(name)
        for item in fromlist or ():
            if f"{name}.{item}" in sys.modules:
                self._need(f"{name}.{item}")
        return module

    def _register(self, function: Any, *arguments: Any, **keywords: Any) -> Any:
        if not self._is_on:  # a module kept the name
            return atexit.register(function, *arguments, **keywords)
        self._stack[-1].log.append(lambda: atexit.register(function, *arguments, **keywords))
        return function


class Silence:
    """Discards output inside the context; `said` tells whether there was any."""

    said = False

    def __enter__(self) -> Silence:
        self._kept = [os.dup(fd) for fd in range(3)]
        self._sink = os.memfd_create("")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(self._sink, 1)
        os.dup2(self._sink, 2)
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.said = os.fstat(self._sink).st_size > 0
        os.close(self._sink)
        for standard, fd in enumerate(self._kept):
            os.dup2(fd, standard)
            os.close(fd)
