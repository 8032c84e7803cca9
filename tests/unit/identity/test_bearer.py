from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Unauthenticated
from identity.bearer import NO_CREDENTIALS, bearer

BAD_HEADERS: dict[str, str | bytes | None] = {
    "absent": None,
    "empty": "",
    "no token": "Bearer ",
    "no space": "Bearer",
    "another scheme": "Basic dXNlcjpwYXNz",
    "two spaces": "Bearer  abc",
    "a tab": "Bearer\tabc",
    "a leading space": " Bearer abc",
    "a trailing space": "Bearer abc ",
    "two tokens": "Bearer abc def",
    "two credentials": "Bearer abc, Bearer def",
    "a line break": "Bearer abc\r\nX-Role: admin",
    "a trailing newline": "Bearer abc\n",
    "quotes": 'Bearer "abc"',
    "padding inside": "Bearer a=b",
    "not ASCII": "Bearer é",
    "latin-1 bytes": b"Bearer \xe9",
    "huge": "Bearer " + "a" * 5000,
    "the token alone": "pcl_ABCDEFGHIJKL_x",
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_bad_header_is_nobody_and_is_not_repeated(name: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        bearer(BAD_HEADERS[name])
    assert str(caught.value) == NO_CREDENTIALS


@given(st.from_regex(r"[A-Za-z0-9._~+/-]{1,80}={0,2}", fullmatch=True), st.sampled_from(["Bearer", "bearer", "BEARER"]))
def test_one_token_is_read_as_it_is(token: str, scheme: str) -> None:
    assert bearer(f"{scheme} {token}") == bearer(f"{scheme} {token}".encode()) == token


@given(st.text() | st.binary())
def test_anything_is_a_token_or_nobody(value: str | bytes) -> None:
    with contextlib.suppress(Unauthenticated):
        assert bearer(value)
