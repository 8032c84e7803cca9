"""What every command shares."""

from __future__ import annotations

import getpass

import pytest

from cli.session import Session


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 65532"), OSError("No username set in the environment")])
def test_a_user_without_a_name_is_their_number(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Containers run as numbers that no /etc/passwd knows, and every command asks who runs it."""

    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 65532)
    assert Session().actor == "uid-65532"
