"""Modules that are no policies; the rest of the Wasm engine is tested with modules that a real OPA compiles (tests/e2e)."""

from __future__ import annotations

import pytest
import wasmtime

from core.errors import ConfigError
from policies.wasm import Wasm

MEMORY = '(import "env" "memory" (memory 1))'
NOT_POLICIES = {
    "no Wasm": b"not wasm at all",
    "nothing in it": wasmtime.wat2wasm("(module)"),
    "no exports": wasmtime.wat2wasm(f"(module {MEMORY})"),
    "an import of its own": wasmtime.wat2wasm(f'(module {MEMORY} (import "wasi_snapshot_preview1" "fd_write" (func)))'),
    "a start that traps": wasmtime.wat2wasm(f"(module {MEMORY} (func $s unreachable) (start $s))"),
    "memory beyond the cap": wasmtime.wat2wasm('(module (import "env" "memory" (memory 60000)))'),
}


@pytest.mark.parametrize("name", NOT_POLICIES)
def test_what_is_no_policy_is_refused_when_it_is_loaded(name: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.wasm"):
        Wasm(bytes(NOT_POLICIES[name]))
