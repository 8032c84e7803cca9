"""Finding and replacing personal data and secrets in text and JSON.

`load()` gives the redactor. Presidio and spaCy are imported only by `redaction.presidio`, which `load` imports when it is called.
Names of people and places are not found yet.
"""

from __future__ import annotations

from redaction.redactor import Redacted, Redactor, Span

__all__ = ["Redacted", "Redactor", "Span", "load"]


def load(policy: str = "default") -> Redactor:
    """The redactor with the recognizers of a log policy (a shipped one's name, or a YAML file's path); takes about two seconds,
    and reaches for no network. ConfigError for a policy that cannot be used."""
    from redaction.policy import read_policy
    from redaction.presidio import PatternFinder, PortcullisAnalyzer

    chosen = read_policy(policy)
    return Redactor(PatternFinder(PortcullisAnalyzer(entities=chosen.entities, threshold=chosen.threshold)))
