"""Finding and replacing personal data and secrets in text and JSON.

`load()` gives the redactor. Presidio and spaCy are imported only by `redaction.analyzer`, which `load` imports when it is called.
Names of people and places are not found yet.
"""

from __future__ import annotations

from redaction.redactor import Redacted, Redactor, Span

__all__ = ["Redacted", "Redactor", "Span", "load"]


def load() -> Redactor:
    """The redactor with every recognizer; takes about two seconds, and reaches for no network."""
    from redaction.analyzer import PatternFinder

    return Redactor(PatternFinder())
