"""`sealed://` references."""

from __future__ import annotations

from string import printable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from weights.reference import SealedReference

DIGEST = "sha256:" + "a" * 64
BAD = {
    "no scheme": f"models/llama@{DIGEST}",
    "another scheme": f"s3://models/llama@{DIGEST}",
    "no digest": "sealed://models/llama",
    "half a digest": "sealed://models/llama@sha256:aa",
    "an upper-case digest": "sealed://models/llama@sha256:" + "A" * 64,
    "no path": f"sealed://@{DIGEST}",
    "a blank": f"sealed://my models@{DIGEST}",
    "a quote": f"sealed://it's@{DIGEST}",
    "more after the digest": f"sealed://m@{DIGEST}/x",
    "a NUL": f"sealed://m%00@{DIGEST}",
    "no UTF-8": f"sealed://%ff@{DIGEST}",
    "a broken escape": f"sealed://%zz@{DIGEST}",
    "two at signs": f"sealed://a@b@{DIGEST}",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_reference(name: str) -> None:
    with pytest.raises(BadInput):
        SealedReference.parse(BAD[name])


def test_the_form_that_the_webhook_reads() -> None:
    assert SealedReference.parse(f"sealed://models/llama@{DIGEST}") == SealedReference("models/llama", DIGEST)
    assert str(SealedReference("/srv/my models", DIGEST)) == f"sealed:///srv/my%20models@{DIGEST}"


@given(st.text(min_size=1, max_size=60).filter(str.isprintable))
def test_any_path_comes_back_and_needs_no_quoting(path: str) -> None:
    text = str(SealedReference(path, DIGEST))
    assert SealedReference.parse(text) == SealedReference(path, DIGEST)
    assert not set(text) & (set(printable) - set(printable[:62]) - set(":/@%._~-"))
