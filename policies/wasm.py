"""The engine for production: the bundle's Wasm module in a sandbox, in this process.

A thin host for OPA's documented ABI (openpolicyagent.org/docs/wasm, version 1.2 and up) on wasmtime: one `opa_eval` call per decision,
no host built-ins at all, a deadline per evaluation (epochs), a cap on memory. The module can compute and nothing else. An instance
that was stopped, ran out of memory or failed in any way is thrown away; the decision is a denial that says which it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import wasmtime
from wasmtime import _ffi
from wasmtime._func import enter_wasm

from core.decision import Domain
from core.errors import ConfigError
from policies.evaluate import EngineFailure

PAGE = 64 * 1024
MAX_MEMORY = 64 * 1024 * 1024
"""What one instance may hold: module, input and everything an evaluation makes."""
POOL = 8
TICK_SECONDS = 0.005
FORMAT_JSON = 0
NO_MEMORY = "the evaluation needs more memory than it may have"
MALLOC_FAILED = b"opa_malloc: failed"
"""How OPA's runtime aborts when the memory cannot grow."""
NO_BUILTINS = ("opa_builtin0", "opa_builtin1", "opa_builtin2", "opa_builtin3", "opa_builtin4")


class Wasm:
    """`Evaluator` over a module compiled by `opa build -t wasm` with one entrypoint per domain. ConfigError when it is none."""

    name = "wasm"

    def __init__(self, module: bytes, *, deadline_ms: int = 1_000, max_memory: int = MAX_MEMORY) -> None:
        self._deadline_ms = deadline_ms
        self._max_memory = max_memory
        config = wasmtime.Config()
        config.epoch_interruption = True
        self._engine = wasmtime.Engine(config)
        try:
            self._module = wasmtime.Module(self._engine, module)
        except wasmtime.WasmtimeError as error:
            raise ConfigError("is no Wasm module that can be compiled", where="policy.wasm") from error
        self._lock = threading.Lock()
        self._idle: list[_Instance] = []
        self._ticker = _Ticker(self._engine)
        self._stop = weakref.finalize(self, self._ticker.stop)
        first = self._new()
        self._idle.append(first)

    def evaluate(self, domain: Domain, document: bytes) -> Any:
        """The decision document. EngineFailure for a stop at the deadline, a trap, no memory, and for anything not understood."""
        if not self._stop.alive:
            raise EngineFailure("engine/unavailable", problem="the engine has been closed")
        with self._instance() as instance, self._ticker.running():
            try:
                text = instance.evaluate(domain, document, ticks=self._ticker.ticks(self._deadline_ms))
            except wasmtime.Trap as trap:
                raise self._failure(trap) from None
            except (wasmtime.WasmtimeError, _NoRoom):
                raise EngineFailure("engine/error", problem=NO_MEMORY) from None
            except _Aborted as aborted:
                raise EngineFailure("engine/error", problem=NO_MEMORY if aborted.no_memory else "evaluation failed") from None
        try:
            found = json.loads(text)
        except ValueError as error:
            raise EngineFailure("engine/error", problem="the answer is not JSON") from error
        # A result set: no element when the decision is undefined.
        return found[0].get("result") if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict) else None

    async def evaluate_async(self, domain: Domain, document: bytes) -> Any:
        """The same: an evaluation takes a fraction of a millisecond, less than handing it to a thread."""
        return self.evaluate(domain, document)

    def close(self) -> None:
        self._stop()

    def _failure(self, trap: wasmtime.Trap) -> EngineFailure:
        if trap.trap_code == wasmtime.TrapCode.INTERRUPT:
            return EngineFailure("engine/timeout", deadline_ms=self._deadline_ms)
        return EngineFailure("engine/error", problem="evaluation failed")

    @contextlib.contextmanager
    def _instance(self) -> Iterator[_Instance]:
        """One that nobody else uses. After a failure it is not used again: nobody knows what its memory holds."""
        with self._lock:
            instance = self._idle.pop() if self._idle else None
        instance = instance or self._new()
        yield instance
        with self._lock:
            if len(self._idle) < POOL:
                self._idle.append(instance)

    def _new(self) -> _Instance:
        try:
            return _Instance(self._engine, self._module, self._max_memory)
        except (wasmtime.WasmtimeError, wasmtime.Trap, _Aborted, _NoRoom, KeyError, ValueError) as error:
            raise ConfigError("is no policy module of OPA's ABI 1.2 without built-ins", where="policy.wasm") from error


class _Aborted(Exception):
    """`opa_abort`, or a built-in that the host does not have."""

    no_memory = False


class _NoRoom(Exception):
    """The input and the instance's memory together are beyond the cap."""


class _Instance:
    """One instance with its memory. Not to be shared between threads at the same time."""

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module, max_memory: int) -> None:
        self._max_pages = max_memory // PAGE
        self._store = store = wasmtime.Store(engine)
        store.set_limits(memory_size=max_memory)
        store.set_epoch_deadline(2**30)  # loading is ours; evaluations set their own
        wanted = next((item.type for item in module.imports if item.name == "memory"), None)
        if not isinstance(wanted, wasmtime.MemoryType):
            raise KeyError("memory")
        exports = self._linked(store, module, wanted.limits.min)
        self._eval = _Call(store, exports["opa_eval"], arguments=7)
        heap: Any = exports["opa_heap_ptr_get"]
        self._text = exports["opa_json_dump"]
        if json.loads(self._dumped(exports["builtins"])) != {}:
            raise ValueError("the module calls built-ins that only a host has")
        self._entrypoints: dict[str, int] = json.loads(self._dumped(exports["entrypoints"]))
        self._data = self._parsed(exports, b"{}")
        self._base: int = heap(store)

    def _linked(self, store: wasmtime.Store, module: wasmtime.Module, pages: int) -> Any:
        """The exports of an instance. OPA writes a memory of two pages into every module, however many its constants fill."""
        while True:
            self._memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(pages, self._max_pages)))
            linked: list[Any] = []
            for item in module.imports:
                if item.name == "memory":
                    linked.append(self._memory)
                elif item.name in {*NO_BUILTINS, "opa_abort", "opa_println"} and isinstance(item.type, wasmtime.FuncType):
                    linked.append(wasmtime.Func(store, item.type, self._host(item.name)))
                else:
                    raise ValueError(f"asks for {item.name}")
            try:
                return wasmtime.Instance(store, module, linked).exports(store)
            except wasmtime.Trap:
                pages *= 2
                if pages > self._max_pages:
                    raise

    def evaluate(self, domain: str, document: bytes, *, ticks: int) -> bytes:
        """The result set as JSON. Everything that an earlier evaluation left above the base is overwritten."""
        entrypoint = self._entrypoints.get(f"portcullis/{domain}/decision")
        if entrypoint is None:
            raise EngineFailure("engine/error", problem=f"the module has no entrypoint for the domain {domain}")
        self._room(self._base + len(document))
        self._write(self._base, document)
        self._store.set_epoch_deadline(ticks)
        heap = (self._base + len(document) + 7) // 8 * 8
        return self._string(self._eval(0, entrypoint, self._data, self._base, len(document), heap, FORMAT_JSON))

    def _host(self, name: str) -> Callable[..., Any]:
        """The host's side of an import. It knows this instance weakly: a stopped one must be collected with its memory."""
        if name != "opa_abort":
            return _ignore if name == "opa_println" else _abort
        here = weakref.ref(self)

        def abort(address: int) -> None:
            instance, aborted = here(), _Aborted()
            aborted.no_memory = instance is not None and instance._string(address) == MALLOC_FAILED
            raise aborted

        return abort

    def _dumped(self, function: Any) -> bytes:
        return self._string(self._text(self._store, function(self._store)))

    def _parsed(self, exports: Any, data: bytes) -> int:
        address = exports["opa_malloc"](self._store, len(data))
        self._write(address, data)
        found: int = exports["opa_json_parse"](self._store, address, len(data))
        if found == 0:
            raise ValueError("the data cannot be read")
        return found

    def _room(self, end: int) -> None:
        """Memory up to `end` and a page to spare; the evaluation grows it further by itself, up to the cap."""
        missing = -(-end // PAGE) + 1 - self._memory.size(self._store)
        if missing > 0:
            if self._memory.size(self._store) + missing > self._max_pages:
                raise _NoRoom
            self._memory.grow(self._store, missing)

    def _write(self, address: int, data: bytes) -> None:
        if address + len(data) > self._memory.data_len(self._store):
            raise _NoRoom
        ctypes.memmove(self._start() + address, data, len(data))

    def _string(self, address: int) -> bytes:
        """The bytes up to the next NUL, looked for inside this memory only."""
        left = self._memory.data_len(self._store) - address
        if address <= 0 or left <= 0:
            raise _Aborted
        start = self._start() + address
        end = _memchr(start, 0, left)
        if end is None:
            raise _Aborted
        return ctypes.string_at(start, end - start)

    def _start(self) -> int:
        """Where the memory lies now; growing may move it."""
        return ctypes.cast(self._memory.data_ptr(self._store), ctypes.c_void_p).value or 0


_memchr = ctypes.CDLL(None).memchr
_memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_memchr.restype = ctypes.c_void_p


class _Call:
    """An exported function of 32-bit integers with one result, called with buffers that are made once.

    wasmtime's own `Func.__call__` asks for the function's type and makes every value anew at each call: three times what the
    evaluation itself takes. These are its checked C functions, so a wrong count or kind is still an error and not a crash.
    """

    def __init__(self, store: wasmtime.Store, function: Any, *, arguments: int) -> None:
        self._store = store
        self._function = function  # keeps what `_raw` points to alive
        self._raw = ctypes.byref(function._func)
        self._values = (_ffi.wasmtime_val_t * arguments)()
        for value in self._values:
            value.kind = _ffi.WASMTIME_I32
        self._count = arguments
        self._result = (_ffi.wasmtime_val_t * 1)()

    def __call__(self, *arguments: int) -> int:
        """Raises what `Func.__call__` raises: Trap, WasmtimeError, or what a host function raised."""
        for value, argument in zip(self._values, arguments, strict=True):
            value.of.i32 = argument
        with enter_wasm(self._store) as trap:
            error = _ffi.wasmtime_func_call(self._store._context(), self._raw, self._values, self._count, self._result, 1, trap)
            if error:
                raise wasmtime.WasmtimeError._from_ptr(error)
        return int(self._result[0].of.i32)


def _abort(*_: int) -> int:
    raise _Aborted


def _ignore(_: int) -> None:
    """`opa_println`: rules have no `print` (it is not on the list)."""


class _Ticker:
    """Moves the engine's epoch while something is evaluated, and sleeps when nothing is."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._running = 0
        self._changed = threading.Condition()
        self._stopped = False
        threading.Thread(
            target=_tick, args=(weakref.ref(self), engine, self._changed), name="policy-epochs", daemon=True
        ).start()

    def ticks(self, deadline_ms: int) -> int:
        """How many epochs a deadline has; one more, for the first is a part of one."""
        return int(deadline_ms / 1000 / TICK_SECONDS) + 2

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self._changed:
            self._running += 1
            if self._running == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()


def _tick(ticker: weakref.ref[_Ticker], engine: wasmtime.Engine, changed: threading.Condition) -> None:
    while True:
        with changed:
            here = ticker()
            if here is None or here._stopped:
                return
            if here._running == 0:
                del here
                changed.wait(timeout=1.0)
                continue
        del here
        time.sleep(TICK_SECONDS)
        engine.increment_epoch()
