from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission import images

HEX = "a" * 64
GOOD = {
    "nginx": ("docker.io", "library/nginx", None, None),
    "nginx:1.27": ("docker.io", "library/nginx", "1.27", None),
    "ml/serve": ("docker.io", "ml/serve", None, None),
    "index.docker.io/nginx": ("docker.io", "library/nginx", None, None),
    "reg:443/x": ("reg:443", "x", None, None),
    "reg:443": ("docker.io", "library/reg", "443", None),
    "localhost/x": ("localhost", "x", None, None),
    "Registry.ACME.example/ml/serve:v1": ("registry.acme.example", "ml/serve", "v1", None),
    "approved.io.evil.com/x": ("approved.io.evil.com", "x", None, None),
    f"r.example:5000/a/b:t@sha256:{HEX}": ("r.example:5000", "a/b", "t", f"sha256:{HEX}"),
    "[::1]:5000/x": ("[::1]:5000", "x", None, None),
}
BAD_REFERENCES = {
    "empty": "", "upper-case path": "registry.io/ML/serve", "user part": "good.io@evil.com/x", "blank": "good.io/x y",
    "leading blank": " nginx", "double slash": "good.io//x", "dots": "good.io/../x", "trailing slash": "good.io/x/",
    "empty tag": "good.io/x:", "long tag": "good.io/x:" + "t" * 129, "short digest": "good.io/x@sha256:abc",
    "upper-case digest": f"good.io/x@sha256:{HEX.upper()}", "unknown digest": f"good.io/x@md5:{HEX}", "scheme": "https://good.io/x",
    "identifier": HEX, "line end": "good.io/x\n", "two digests": f"x@sha256:{HEX}@sha256:{HEX}", "long": "a" * 300,
    "not ascii": "good.io/ｘ", "trailing dot": "good.io./x",
}  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), GOOD.items())
def test_parts_of_a_reference(text: str, parts: tuple[str | None, ...]) -> None:
    image = images.parse(text)
    assert image is not None
    assert (image.registry, image.repository, image.tag, image.digest) == parts


@pytest.mark.parametrize("text", BAD_REFERENCES.values(), ids=BAD_REFERENCES.keys())
def test_what_is_not_a_reference_is_nothing(text: str) -> None:
    assert images.parse(text) is None


@given(st.text(max_size=60))
def test_what_parses_is_written_back_to_the_same_parts(text: str) -> None:
    image = images.parse(text)
    if image is not None:
        again = f"{image.registry}/{image.repository}" + (f":{image.tag}" if image.tag else "")
        assert images.parse(again + (f"@{image.digest}" if image.digest else "")) == image
