"""Image references by the grammar that registries and kubelets use, so that no prefix trick passes for an approved place.

Grammar: github.com/distribution/reference, `reference.go` and `normalize.go`. Docker Hub's short names are completed
(`nginx` is `docker.io/library/nginx`), hosts are lower-cased (DNS does not distinguish case), `index.docker.io` is `docker.io`.
"""

from __future__ import annotations

import re

from core.inputs import Image

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGESTS = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\Z")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}\Z")
MAX_NAME = 255


def parse(reference: str) -> Image | None:
    """The parts of an image reference, or None when it is not one."""
    name, at, digest = reference.partition("@")
    if at and not _DIGESTS.match(digest):
        return None
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)  # a colon before the last slash is a port
    tag = None
    if colon >= 0:
        name, tag = name[:colon], name[colon + 1 :]
        if not _TAG.match(tag):
            return None
    if len(name) > MAX_NAME or _IDENTIFIER.match(name):
        return None
    registry, repository = _split(name)
    if not _HOST.match(registry) or not _PATH.match(repository):
        return None
    return Image(registry=registry.lower(), repository=repository, tag=tag, digest=digest or None)


def _split(name: str) -> tuple[str, str]:
    """Host and path: the first part is a host when it looks like one (normalize.go, splitDockerDomain)."""
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry, repository = (first, rest) if is_host else ("docker.io", name)
    if registry.lower() in ("index.docker.io", "docker.io"):
        registry = "docker.io"
        if "/" not in repository:
            repository = f"library/{repository}"
    return registry, repository
