"""A sealed folder: what goes in comes out, and nothing else does (shared/failure-cases/weights.md)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.canonical import canonical
from core.errors import BadInput, ConfigError, Conflict, NotFound, SealBroken, Unavailable
from weights import sealed as sealing
from weights.files import Reader, reading
from weights.floe import Parameters, encrypt
from weights.keys import InsecureLocalKeys, WrappedKey
from weights.manifest import check_paths, read_manifest
from weights.sealed import Sealed, check, inspect, open_sealed, seal
from weights.tensors import read_header

SMALL = Parameters(4096)


def safetensors(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


GOOD = {"w": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}


@pytest.fixture
def keys(tmp_path: Path) -> InsecureLocalKeys:
    made = InsecureLocalKeys(tmp_path / "keys")
    made.generate()
    return made


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors(GOOD))
    (folder / "sub" / "tokenizer.json").write_bytes(os.urandom(10_000))
    (folder / "empty").write_bytes(b"")
    (folder / "config.json").write_bytes(b'{"layers": 2}')
    return folder


@pytest.fixture
async def folder(plain: Path, keys: InsecureLocalKeys, tmp_path: Path) -> Sealed:
    await seal(plain, tmp_path / "sealed", keys, parameters=SMALL)
    return inspect(tmp_path / "sealed")


async def opened(folder: Sealed, keys: InsecureLocalKeys, target: Path) -> Path:
    await open_sealed(folder, target, await keys.unwrap(folder.keys[0], folder.digest))
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_what_goes_in_comes_out(folder: Sealed, plain: Path, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    out = await opened(folder, keys, tmp_path / "out")
    assert contents(out) == contents(plain)
    assert out.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in out.rglob("*") if path.is_file())
    tokens = (plain / "sub" / "tokenizer.json").read_bytes()
    assert not any(tokens[:32] in data for data in contents(folder.folder).values())
    found = {file.path: file for file in folder.manifest.files}
    assert (found["model.safetensors"].tensors, found["empty"].size, found["empty"].tensors) == (1, 0, None)


async def test_the_same_content_sealed_twice_shares_nothing(
    folder: Sealed, plain: Path, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    again = await seal(plain, tmp_path / "again", keys, parameters=SMALL)
    assert again.digest != folder.digest
    first, second = contents(folder.folder), contents(again.folder)
    assert not set(first.values()) & set(second.values())


async def test_row_2_a_file_opens_under_no_other_name_and_in_no_other_folder(
    folder: Sealed, plain: Path, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    """Even with a manifest that says so, and under the same key: name and seal are part of what is authenticated."""
    key = await keys.unwrap(folder.keys[0], folder.digest)
    document = json.loads((folder.folder / "manifest.json").read_text())
    one, two = document["files"][0], document["files"][3]
    for field in ("size", "sealed_size", "sealed_digest"):
        one[field], two[field] = two[field], one[field]
    a, b = (folder.folder / f"{entry['path']}.floe" for entry in (one, two))
    content = a.read_bytes(), b.read_bytes()
    a.write_bytes(content[1])
    b.write_bytes(content[0])
    (folder.folder / "manifest.json").write_bytes(canonical(document))
    changed = inspect(folder.folder)
    check(changed)
    with pytest.raises(SealBroken, match="key and context"):
        await open_sealed(changed, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SealBroken, match="another manifest"):
        await keys.unwrap(changed.keys[0], changed.digest)


async def test_rows_1_and_3_any_change_of_a_sealed_file_is_found_without_a_key(folder: Sealed) -> None:
    path = folder.folder / "sub" / "tokenizer.json.floe"
    data = path.read_bytes()
    for wrong in (data[:-1], data + b"x", data[:50] + bytes([data[50] ^ 1]) + data[51:], b""):
        path.write_bytes(wrong)
        with pytest.raises(SealBroken, match="not the file that was sealed"):
            check(folder)
    path.unlink()
    with pytest.raises(SealBroken, match=r"missing: sub/tokenizer.json.floe"):
        check(folder)


async def test_row_17_an_extra_file_is_found(folder: Sealed) -> None:
    (folder.folder / "pickle.bin").write_bytes(b"x")
    with pytest.raises(SealBroken, match=r"not in the manifest: pickle\.bin"):
        check(folder)


async def test_row_17_with_an_extra_file_nothing_is_opened(folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    key = await keys.unwrap(folder.keys[0], folder.digest)
    (folder.folder / "modeling_custom.py").write_text("import os")
    with pytest.raises(SealBroken, match="not in the manifest"):
        await open_sealed(folder, tmp_path / "out", key)


async def test_row_13_a_manifest_that_lies_about_a_size_is_found_by_who_has_the_key(
    folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    key = await keys.unwrap(folder.keys[0], folder.digest)
    document = json.loads((folder.folder / "manifest.json").read_text())
    document["files"][2]["size"] += 1
    (folder.folder / "manifest.json").write_bytes(canonical(document))
    with pytest.raises(SealBroken, match="another number of bytes"):
        await open_sealed(inspect(folder.folder), tmp_path / "out", key)


async def test_a_file_that_changes_while_it_is_sealed_is_not_sealed(
    plain: Path, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    def grow(_: int) -> None:
        with (plain / "sub" / "tokenizer.json").open("ab") as file:
            file.write(b"more")

    with pytest.raises(Conflict, match="changed while"):
        await seal(plain, tmp_path / "sealed", keys, parameters=SMALL, progress=grow)
    assert not (tmp_path / "sealed").exists()


def test_row_15_a_link_put_in_place_after_the_walk_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="plain file"), reading(tmp_path, "weights.bin"):
        pytest.fail("the link was followed")


def _link(place: Path) -> None:
    place.symlink_to("/etc/hostname")


def _cycle(place: Path) -> None:
    place.symlink_to(place.parent, target_is_directory=True)


def _pipe(place: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("make", [_link, _cycle, _pipe])
async def test_row_15_links_and_pipes_are_refused(
    make: Any, plain: Path, keys: InsecureLocalKeys, folder: Sealed, tmp_path: Path
) -> None:
    make(plain / "odd")
    with pytest.raises(BadInput, match="link, a device or a pipe"):
        await seal(plain, tmp_path / "other", keys)
    assert not (tmp_path / "other").exists()
    make(folder.folder / "odd")
    with pytest.raises(BadInput):
        check(folder)


def resealed(folder: Sealed, key: bytes, path: str, content: bytes) -> None:
    """What somebody who was once given the key can do: a perfect ciphertext of something else, under the right name."""
    (file,) = [file for file in folder.manifest.files if file.path == path]
    (folder.folder / file.sealed_path).write_bytes(encrypt(content, key, folder.manifest.aad(file), folder.manifest.parameters))


async def test_row_15_what_was_checked_is_what_is_read(folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    """A file exchanged after every check, even by a holder of the key: the digest is taken over the bytes that are decrypted."""
    key = await keys.unwrap(folder.keys[0], folder.digest)
    check(folder)
    resealed(folder, key, "sub/tokenizer.json", b"E" * 10_000)
    with pytest.raises(SealBroken, match="not the file that was sealed"):
        await open_sealed(folder, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()


async def test_row_15_a_folder_that_becomes_a_link_is_not_followed(
    plain: Path, keys: InsecureLocalKeys, folder: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and opening, `sub` becomes a link out of the folder: every part of a path is opened without following."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "tokenizer.json").write_text("not yours")
    found = sealing.walk

    def then_moved(place: Path) -> Iterator[str]:
        paths = list(found(place))
        (plain / "sub").rename(tmp_path / "moved")
        (plain / "sub").symlink_to(outside)
        return iter(paths)

    monkeypatch.setattr(sealing, "walk", then_moved)
    with pytest.raises((BadInput, NotFound)):
        await seal(plain, tmp_path / "other", keys)
    assert not (tmp_path / "other").exists()


async def test_row_15_a_hard_link_is_checked_like_any_file_and_never_written_through(
    folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    sealed_file = folder.folder / "sub" / "tokenizer.json.floe"
    other_name = tmp_path / "other-name"
    os.link(sealed_file, other_name)
    before = other_name.read_bytes()
    await opened(folder, keys, tmp_path / "out")
    assert other_name.read_bytes() == before
    other_name.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(SealBroken):
        check(folder)


async def test_a_file_that_changes_while_it_is_sealed(
    plain: Path, keys: InsecureLocalKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, other bytes: what the manifest says of a header must be what was sealed."""
    real = sealing.encrypt_file
    told = {"__metadata__": {"told": "x" * 50_000}}  # more than a buffered reader keeps
    before, other = safetensors({**GOOD, **told}), safetensors({"x": GOOD["w"], **told})
    (plain / "model.safetensors").write_bytes(before)
    assert len(other) == len(before)

    def meanwhile(*arguments: Any, **named: Any) -> int:
        if arguments[3].endswith(b"model.safetensors"):
            (plain / "model.safetensors").write_bytes(other)
        return real(*arguments, **named)

    monkeypatch.setattr(sealing, "encrypt_file", meanwhile)
    with pytest.raises(Conflict, match="changed while it was"):
        await seal(plain, tmp_path / "sealed", keys)
    monkeypatch.setattr(Reader, "check_unchanged", lambda self: None)
    (plain / "model.safetensors").write_bytes(before)
    with pytest.raises(Conflict, match="header changed while it was"):
        await seal(plain, tmp_path / "sealed", keys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "plain"]


async def test_row_19_stopped_half_way_leaves_nothing_and_nobody_writing(
    plain: Path, keys: InsecureLocalKeys, folder: Sealed, tmp_path: Path
) -> None:
    """Cancelled in the middle of a file: the thread ends before `seal` or `open_sealed` does, and then nothing is left."""
    key = await keys.unwrap(folder.keys[0], folder.digest)
    loop = asyncio.get_running_loop()
    for start in (
        lambda progress: seal(plain, tmp_path / "other", keys, parameters=SMALL, progress=progress),
        lambda progress: open_sealed(folder, tmp_path / "other", key, progress=progress),
    ):
        calls: list[int] = []
        begun, go_on = asyncio.Event(), threading.Event()

        def progress(
            count: int, calls: list[int] = calls, begun: asyncio.Event = begun, go_on: threading.Event = go_on
        ) -> None:
            calls.append(count)
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(5)

        task = asyncio.ensure_future(start(progress))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done(), "it waits for its thread"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(calls) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "plain", "sealed"]


async def test_row_19_what_cannot_be_taken_away_is_said(
    folder: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", stuck)
    with pytest.raises(Unavailable, match="delete it by hand") as raised:
        await open_sealed(folder, tmp_path / "out", bytes(32))
    assert ".out.partial-" in raised.value.where


CHANGED_TENSORS: dict[str, Any] = {
    "a tensor renamed": {"v": GOOD["w"]},
    "another dtype": {"w": {**GOOD["w"], "dtype": "I16"}},
    "another shape": {"w": {**GOOD["w"], "shape": [4, 1]}},
    "no header at all": b"x" * 60,
}


@pytest.mark.parametrize("name", CHANGED_TENSORS)
async def test_row_13_changed_tensors(name: str, folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    """By a holder of the key, with a manifest that still claims the header that people approved."""
    key = await keys.unwrap(folder.keys[0], folder.digest)
    content = safetensors(CHANGED_TENSORS[name])
    resealed(folder, key, "model.safetensors", content)
    with pytest.raises(SealBroken, match="not the file that was sealed"):
        check(folder)
    data = (folder.folder / "model.safetensors.floe").read_bytes()
    document = json.loads((folder.folder / "manifest.json").read_text())
    (entry,) = [entry for entry in document["files"] if entry["path"] == "model.safetensors"]
    entry.update(size=len(content), sealed_size=len(data), sealed_digest="sha256:" + hashlib.sha256(data).hexdigest())
    (folder.folder / "manifest.json").write_bytes(canonical(document))
    changed = inspect(folder.folder)
    check(changed)
    with pytest.raises(SealBroken, match=r"another header|header is broken"):
        await open_sealed(changed, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SealBroken, match="another manifest"):
        await keys.unwrap(changed.keys[0], changed.digest)


async def test_row_13_two_tensors_of_one_shape_swapped(keys: InsecureLocalKeys, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    header = {name: {"dtype": "U8", "shape": [4], "data_offsets": [at, at + 4]} for name, at in (("a", 0), ("b", 4))}
    (tmp_path / "two" / "m.safetensors").write_bytes(safetensors(header, b"aaaabbbb"))
    sealed = await seal(tmp_path / "two", tmp_path / "sealed", keys)
    key = await keys.unwrap(sealed.keys[0], sealed.digest)
    resealed(sealed, key, "m.safetensors", safetensors(header, b"bbbbaaaa"))
    with pytest.raises(SealBroken):
        await open_sealed(sealed, tmp_path / "out", key)


async def test_another_manifest_than_the_expected_one(folder: Sealed) -> None:
    assert inspect(folder.folder, expected=folder.digest) == folder
    with pytest.raises(SealBroken, match="the manifest is sha256:"):
        inspect(folder.folder, expected="sha256:" + "0" * 64)


BAD_PATHS = [
    "../a", "/a", "C:\\a", "C:a", "a\x00b", "a\\b", "a//b", "./a", "a/..", "a/.", "", "a ", "a.", "a\u200bb", "a\nb", "x" * 600,
    "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=[repr(path[:12]) for path in BAD_PATHS])
def test_row_14_paths_that_mean_something_else_elsewhere(path: str) -> None:
    with pytest.raises(BadInput):
        check_paths([path])


def test_row_14_twins_order_and_doubles() -> None:
    check_paths(["A", "b", "c/d", "é"])
    for paths in (["A", "a"], ["b", "a"], ["a", "a"], ["e\u0301", "é"], ["a", "a/b"], ["A/x", "a/y"], ["A", "a/b"]):
        with pytest.raises(BadInput):
            check_paths(paths)


MANIFEST: dict[str, Any] = {
    "format": "portcullis.dev/sealed-weights/v1",
    "seal": "0" * 32,
    "floe": {"aead": "AES-256-GCM", "kdf": "HKDF-EXPAND-SHA-384", "segment_bytes": 4096},
    "files": [{"path": "a", "size": 1, "sealed_size": 107, "sealed_digest": "sha256:" + "0" * 64}],
}
WRONG_MANIFESTS: dict[str, Any] = {
    "no files": {"files": []},
    "another format": {"format": "portcullis.dev/sealed-weights/v2"},
    "another cipher": {"floe": {**MANIFEST["floe"], "aead": "AES-128-GCM"}},
    "one more field in floe": {"floe": {**MANIFEST["floe"], "mask": 2}},
    "segments of nothing": {"floe": {**MANIFEST["floe"], "segment_bytes": 0}},
    "segments without end": {"floe": {**MANIFEST["floe"], "segment_bytes": 2**40}},
    "a segment length that is true": {"floe": {**MANIFEST["floe"], "segment_bytes": True}},
    "a seal that is no seal": {"seal": "x"},
    "files that are no list": {"files": {"a": 1}},
    "a size below zero": {"files": [{**MANIFEST["files"][0], "size": -1}]},
    "a size that is true": {"files": [{**MANIFEST["files"][0], "size": True}]},
    "a digest that is none": {"files": [{**MANIFEST["files"][0], "sealed_digest": "sha1:00"}]},
    "an unknown field": {"files": [{**MANIFEST["files"][0], "mode": 511}]},
    "tensors of no safetensors file": {
        "files": [{**MANIFEST["files"][0], "tensors": 1, "header_digest": "sha256:" + "0" * 64}]
    },
    "a safetensors file without its header's digest": {"files": [{**MANIFEST["files"][0], "path": "a.safetensors"}]},
    "a path that climbs": {"files": [{**MANIFEST["files"][0], "path": "../a"}]},
}


@pytest.mark.parametrize("name", WRONG_MANIFESTS)
def test_row_14_manifests_that_are_none(name: str) -> None:
    with pytest.raises(BadInput):
        read_manifest(canonical({**MANIFEST, **WRONG_MANIFESTS[name]}))


def test_row_14_manifests() -> None:
    read_manifest(canonical(MANIFEST))
    for data in (b"", b"{}", b"[]", canonical(MANIFEST) + b"\n", json.dumps(MANIFEST).encode(), canonical(MANIFEST)[:-1]):
        with pytest.raises(BadInput):
            read_manifest(data)
    doubled = canonical(MANIFEST).replace(b'"seal":', b'"seal":"' + b"1" * 32 + b'","seal":')
    with pytest.raises(BadInput, match="twice"):
        read_manifest(doubled)


def test_row_11_wrapped_keys_without_end(folder: Sealed) -> None:
    entry = folder.keys[0].as_json()
    named = [{**entry, "kek": "Alice Smith <alice@acme.example>"}]
    for entries in ([], [entry] * 17, [entry, entry], [{**entry, "more": "x"}], [{"kek": 1}], "x", None, named):
        (folder.folder / "keys.json").write_bytes(canonical({"v": 1, "keys": entries}))
        with pytest.raises(BadInput):
            inspect(folder.folder)


WRONG_TENSORS: dict[str, bytes] = {
    "too short": b"\x01",
    "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "not JSON": safetensors(b"{", b""),
    "a name twice": safetensors(
        b'{"w": ' + json.dumps(GOOD["w"]).encode() + b', "w": ' + json.dumps(GOOD["w"]).encode() + b"}"
    ),
    "a hole": safetensors({"w": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}),
    "an overlap": safetensors({**GOOD, "v": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}),
    "bytes that no tensor has": safetensors({"w": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}),
    "beyond the end": safetensors({"w": {"dtype": "F16", "shape": [8], "data_offsets": [0, 16]}}),
    "a shape that does not fill": safetensors({"w": {"dtype": "F16", "shape": [3], "data_offsets": [0, 8]}}),
    "a negative shape": safetensors({"w": {"dtype": "F16", "shape": [-2, -2], "data_offsets": [0, 8]}}),
    "backwards": safetensors({"w": {"dtype": "F16", "shape": [0], "data_offsets": [8, 0]}}),
    "an unknown dtype": safetensors({"w": {"dtype": "F17", "shape": [4], "data_offsets": [0, 8]}}),
    "an unknown field": safetensors({"w": {**GOOD["w"], "x": 1}}),
    "metadata that are no texts": safetensors({**GOOD, "__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
async def test_row_18_safetensors_headers(name: str, plain: Path, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    (plain / "model.safetensors").write_bytes(WRONG_TENSORS[name])
    with pytest.raises(BadInput, match=r"^"):
        await seal(plain, tmp_path / "sealed", keys)
    assert not list(tmp_path.glob(".sealed*"))


def test_row_18_good_headers(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(5, np.int8)}, tmp_path / "x.safetensors", {"by": "us"})
    with (tmp_path / "x.safetensors").open("rb") as file:
        header = read_header(file, (tmp_path / "x.safetensors").stat().st_size)
    assert (header.tensors, header.parameters) == (2, 11)


async def test_row_19_a_failure_leaves_nothing_behind(folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    key = await keys.unwrap(folder.keys[0], folder.digest)
    last = folder.folder / "sub" / "tokenizer.json.floe"
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(bytes(data))
    with pytest.raises(SealBroken):
        await open_sealed(folder, tmp_path / "out", key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "plain", "sealed"]


async def test_row_19_a_full_disk(
    folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await keys.unwrap(folder.keys[0], folder.digest)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        await open_sealed(folder, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()


async def test_nothing_is_overwritten(folder: Sealed, plain: Path, keys: InsecureLocalKeys) -> None:
    with pytest.raises(Conflict):
        await seal(plain, folder.folder, keys)
    with pytest.raises(Conflict):
        await open_sealed(folder, plain, bytes(32))
    empty = plain.parent / "nothing"
    empty.mkdir()
    with pytest.raises(BadInput, match="no file"):
        await seal(empty, plain.parent / "x", keys)
    with pytest.raises(NotFound):
        await seal(plain.parent / "nowhere", plain.parent / "x", keys)
    with pytest.raises(NotFound, match="no sealed folder"):
        inspect(plain)


async def test_row_12_a_rewrap_changes_no_byte_that_was_approved(
    folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    """Wrapped keys stand beside the manifest: under a new key-encryption key the digest, and so every approval, stays."""
    key = await keys.unwrap(folder.keys[0], folder.digest)
    newer = keys.generate()
    wrapped = await keys.wrap(key, folder.digest)
    assert wrapped.kek == newer
    (folder.folder / "keys.json").write_bytes(canonical({"v": 1, "keys": [wrapped.as_json()]}))
    again = inspect(folder.folder)
    assert again.digest == folder.digest
    assert contents(await opened(again, keys, tmp_path / "out"))


async def test_wrapped_keys_belong_to_one_manifest_and_one_provider(
    folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path
) -> None:
    mine = folder.keys[0]
    for wrong, error in (
        (WrappedKey("aws-kms", mine.kek, mine.wrapped), NotFound),
        (WrappedKey("local", "../../etc/passwd", mine.wrapped), NotFound),
        (WrappedKey("local", "local-" + "0" * 36, mine.wrapped), NotFound),
        (WrappedKey("local", mine.kek, mine.wrapped[:-1]), SealBroken),
        (WrappedKey("local", mine.kek, bytes(60)), SealBroken),
    ):
        with pytest.raises(error):
            await keys.unwrap(wrong, folder.digest)
    with pytest.raises(SealBroken, match="another manifest"):
        await keys.unwrap(mine, "sha256:" + "0" * 64)
    with pytest.raises(NotFound, match="weights keygen"):
        await InsecureLocalKeys(tmp_path / "none").wrap(bytes(32), folder.digest)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "keys").iterdir())
    assert [path.suffix for path in (tmp_path / "keys").iterdir()] == [".key"], "no draft is left"
    assert mine.wrapped.hex() not in repr(mine)


async def test_a_key_that_others_may_read_is_not_used(folder: Sealed, keys: InsecureLocalKeys, tmp_path: Path) -> None:
    (file,) = (tmp_path / "keys").iterdir()
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        await keys.unwrap(folder.keys[0], folder.digest)
    with pytest.raises(ConfigError):
        await keys.wrap(bytes(32), folder.digest)
