"""Modules imported ahead of the program, and kept out of its sight until it imports them.

What is preloaded is taken out of sys.modules again, into a stash. When the program imports,
importlib looks for the module as ever, so that sys.path decides; if what it found is what the stash
has, the stashed module is handed out and not executed again. With it comes what its import would
have brought: the modules that it imported, and what they did to the interpreter's own lists and
variables (warning filters, exit callbacks, ...), in the same order, from a log kept while preloading.

At the program's end the preloaded modules are left alone: tearing them down is what takes the time
(`_Farewell`).
"""

from __future__ import annotations

import _frozen_importlib
import _weakref
import atexit
import gc
import os
import sys
import time
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from codeforge.guest.python.python_recorder import Record, Recorder, Silence

importlib: Any = _frozen_importlib
OWN_NEEDS = ("warnings", "atexit", "gc", "ctypes", "functools", "resource")

PR_SET_DUMPABLE = 4
MADV_DONTNEED, MADV_COLLAPSE = 4, 25
HUGE_PAGE_BYTES = 2 << 20
CANNOT_HIDE = 70


def _renew_key(process: Any) -> None:
    config = process.current_process()._config
    config["authkey"] = process.AuthenticationString(os.urandom(32))


RENEWALS: dict[str, Callable[[Any], object]] = {
    "logging": lambda logging: setattr(logging, "_startTime", time.time()),
    "multiprocessing.process": _renew_key,
    "threading": lambda threading: threading.main_thread()._set_native_id(),
    "numpy.random.mtrand": lambda mtrand: mtrand.seed(),
}
"""What a module settled when it was imported and two runs must not share. `random` sees to itself."""


def _heed_backend(matplotlib: Any) -> None:
    if os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]


READINGS: dict[str, Callable[[Any], object]] = {"matplotlib": _heed_backend}
"""What a module read of the environment when it was imported, and programs set just before."""


class _Farewell:
    """Leaves the preloaded modules alone when the interpreter tears everything down.

    They are frozen, so that no garbage collection looks at them, and held by a frozen cycle. The
    interpreter's last steps are: exit callbacks; a collection; forgetting sys.path_hooks and its
    like; setting what is in sys.modules to None; a collection; clearing the modules that are still
    there, latest first. `_before` runs at the third of these, `_after` at the last.
    """

    def __init__(self) -> None:
        self.handed_out: dict[str, Any] = {}
        self.caches: dict[str, list[Any]] = {}
        last: Any = type(sys)("codeforge_farewell")
        self._last = last
        last.hook = _Farewell._Hook()
        self._watches = (
            _weakref.ref(sys.modules["__main__"], self._before),
            _weakref.ref(last.hook, self._after),
        )

    class _Hook:
        pass

    def _before(self, _: object) -> None:
        if not sys.is_finalizing():
            return
        for module in self.handed_out:
            for cache in self.caches.get(module, ()):
                cache.cache_clear()
        modules: dict[str, Any] = sys.modules
        for name, module in self.handed_out.items():
            if modules.get(name) is module:
                modules[name] = None
        sys.modules[self._last.__name__] = self._last

    def _after(self, _: object) -> None:
        """If objects of the program hang on preloaded modules, tear those down after all."""
        if sys.is_finalizing() and any(hasattr(kind, "__del__") for kind in set(map(type, gc.get_objects()))):
            gc.unfreeze()
            self.handed_out.clear()
            self.caches.clear()
            gc.collect()
        else:
            self._skip_the_rest()

    def prepare(self, pythonapi: Any, c_void_p: Any) -> None:
        """Find where the runtime says which interpreter is the main one: right after the list's head."""
        pythonapi.PyInterpreterState_Main.restype = c_void_p
        main = pythonapi.PyInterpreterState_Main()
        runtime = (c_void_p * 64).in_dll(pythonapi, "_PyRuntime")
        self._main = [(runtime, at + 1) for at in range(63) if runtime[at] == runtime[at + 1] == main][:1]

    def _skip_the_rest(self) -> None:
        """What follows touches every interned string, of the main interpreter only: each page a copy."""
        for runtime, at in self._main:
            runtime[at] = None


class Preloads:
    """The stash."""

    def __init__(self, visible: frozenset[str]) -> None:
        self._visible = visible
        for name in {"__future__"} - visible:
            del sys.modules[name]
        self._counts = gc.get_count()
        self._fillers: list[dict[str, str]] = []
        own = {module.__name__: module for module in (atexit, gc, warnings)}
        self._records = {name: Record(own[name].__spec__) for name in own.keys() - visible}
        self._finders: dict[str, Any] = {}
        self._visible_finders = frozenset(sys.path_importer_cache)
        self._path = tuple(sys.path)
        self._is_recording = False
        self._true_find_spec = importlib._find_spec
        self._cycle = self
        self._farewell = _Farewell()
        # What the interpreter needs to start with is left alone at the end like what was preloaded.
        started_with = visible - {"__main__", "builtins", "sys"}
        self._farewell.handed_out.update({name: sys.modules[name] for name in started_with})
        self._import(["importlib.util"])  # before _find_spec is replaced: its find_spec is to be the true one
        importlib._find_spec = self._find_spec
        self._import(OWN_NEEDS)
        ctypes = self._records["ctypes"].module
        libc = ctypes.CDLL(None)
        self._prctl, self._madvise = libc.prctl, libc.madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        # The last registered runs first: leave with exit's own code, before the libraries' destructors.
        for handler in (libc._exit, libc.fcloseall):
            libc.on_exit(handler, None)
        self._farewell.prepare(ctypes.pythonapi, ctypes.c_void_p)

    def add(self, names: Iterable[str]) -> None:
        """Import each into the stash; what cannot be imported is passed over."""
        self._import(names)
        self._shrink()

    def _shrink(self) -> None:
        """Have fewer pages mapped: tearing them down is most of a short run's time.

        Code that importing needed and the run may not is mapped again when it is touched; memory that
        is full of small objects becomes huge pages, where the kernel can.
        """
        with open("/proc/self/maps") as maps:  # noqa: PTH123
            lines = [line.split() for line in maps]
        for addresses, permissions, _, _, _, *name in lines:
            start, end = (int(address, 16) for address in addresses.split("-"))
            if permissions == "r-xp" and name and name[0].startswith("/"):
                self._madvise(start, end - start, MADV_DONTNEED)
            elif permissions == "rw-p" and name in ([], ["[heap]"]):
                for huge in range(-(-start // HUGE_PAGE_BYTES), end // HUGE_PAGE_BYTES):
                    self._madvise(huge * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES, MADV_COLLAPSE)

    def _import(self, names: Iterable[str]) -> None:
        gc.disable()
        for name in names:
            with Silence() as silence, Recorder(self._visible, self._records) as recorder:
                self._is_recording = True
                try:  # noqa: SIM105 - contextlib is the program's
                    __import__(name)
                except BaseException:  # noqa: BLE001, S110
                    pass
                self._is_recording = False
            self._stash({} if silence.said else recorder.records)
        functools = self._records.get("functools")
        kind = functools.module._lru_cache_wrapper if functools else None
        for thing in gc.get_objects() if kind else ():
            if type(thing) is kind:
                self._farewell.caches.setdefault(thing.__module__, []).append(thing)
        gc.collect()
        gc.freeze()
        self._restore_counts()
        gc.enable()

    def _stash(self, records: dict[str, Record]) -> None:
        """Take everything that came out of sight."""
        self._records.update({name: record for name, record in records.items() if name in sys.modules})
        mine = [name for name in sys.modules if name not in self._visible]
        for name in mine:
            module = sys.modules[name]
            record = self._records.get(name)
            parent, _, child = name.rpartition(".")
            attributes = getattr(sys.modules.get(parent), "__dict__", {})
            if record and module is not sys.modules["__main__"]:  # multiprocessing has a second name for it
                record.module = module
            if record:
                record.is_bound = record.is_bound or attributes.get(child) is module
            if attributes.get(child) is module:
                del attributes[child]
        for name in mine:
            del sys.modules[name]
        for path in sys.path_importer_cache.keys() - self._visible_finders:
            self._finders[path] = sys.path_importer_cache.pop(path)

    def _restore_counts(self) -> None:
        """When collections take place is to be as if nothing had been; an empty dict is never looked at."""
        self._fillers.clear()
        for generation in (1, 0):
            for _ in range(self._counts[generation + 1]):
                gc.collect(generation)
        while gc.get_count()[0] < self._counts[0]:
            self._fillers.append({})

    # --- Handing out

    def _find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec: ModuleSpec | None = self._true_find_spec(name, path, target)
        record = self._records.get(name)
        if target or not spec or not record or not record.spec or not _is_same(spec, record.spec):
            return spec
        handing_out: ModuleSpec = importlib.ModuleSpec(name, self)
        return handing_out

    def create_module(self, spec: ModuleSpec) -> None:
        """Have importlib make one, to be replaced at once: it would change one of ours."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the stashed module in the place of the one that importlib made."""
        name = module.__name__
        del sys.modules[name]
        hidden = self._hidden_by(path for path in sys.path if path not in self._path)
        self._restore(name, hidden - {name.partition(".")[0]})

    def _restore(self, name: str, hidden: set[str]) -> None:
        """Do again what importing the module did, but for running it."""
        record = self._records.get(name)
        top = name.partition(".")[0]
        if name in sys.modules or not record or top in hidden:
            return
        parent, _, child = name.rpartition(".")
        if parent:
            self._restore(parent, hidden)
            if name in sys.modules:
                return
            self._restore_finders(sys.modules[parent])
        if not self._is_recording:
            del self._records[name]
            if record.module:
                self._farewell.handed_out[name] = record.module
        sys.modules[name] = record.module or sys.modules["__main__"]
        for entry in record.log:
            if isinstance(entry, str):
                self._restore(entry, hidden)
            else:
                entry()
        sys.modules[name] = sys.modules.pop(name)
        if record.is_bound:
            setattr(sys.modules[parent], child, record.module)
        if name in READINGS and not self._is_recording:
            READINGS[name](record.module)

    def _restore_finders(self, package: ModuleType) -> None:
        for path in getattr(package, "__path__", ()):
            if path in self._finders:
                sys.path_importer_cache.setdefault(path, self._finders[path])

    def _hidden_by(self, directories: Iterable[str]) -> set[str]:
        """Top-level names that files there may take the place of."""
        hidden = set()
        for directory in directories:
            try:
                entries = os.listdir(directory or ".")  # noqa: PTH208
            except OSError:
                continue
            hidden |= {
                stem
                for stem, _, suffix in (entry.partition(".") for entry in entries)
                if suffix in ("", "py", "pyc") or suffix.endswith("so")
            }
        return hidden

    # --- Becoming the run

    def hand_over(self, code: str) -> None:
        """Last things before the program."""
        if any(name in self._records for name in self._hidden_by([code])):
            # A preloaded library would be without the program's module of that name.
            os.execvpe(sys.orig_argv[0], sys.orig_argv, os.environ)  # noqa: S606
        self.renew()

    def renew(self) -> None:
        """What modules that are still stashed settled once for all."""
        for name, renew in RENEWALS.items():
            if name in self._records:
                renew(self._records[name].module)

    def wait(self, pid: int) -> tuple[int, Any]:
        """Status and usage from os.wait4, which imports `resource`."""
        sys.modules["resource"] = self._records["resource"].module
        try:
            return os.wait4(pid, 0)[1:]
        finally:
            del sys.modules["resource"]

    def set_dumpable(self, dumpable: bool) -> None:
        """Whether processes of the same user can look into this one."""
        if self._prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0):
            os._exit(CANNOT_HIDE)


def _is_same(found: ModuleSpec, stashed: ModuleSpec) -> bool:
    where = [list(spec.submodule_search_locations or ()) for spec in (found, stashed)]
    return (
        type(found.loader) is type(stashed.loader) and found.origin == stashed.origin and where[0] == where[1]
    )
