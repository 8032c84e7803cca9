"""Presidio as the analyzer, with a blank pipeline (no model, no download) and recognizers for secrets.

Nothing here reaches for a network: the e-mail recognizer's suffix list is the one inside the `tldextract` package. Names of
people and places are not found yet; that is why the default log policy withholds message content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    CryptoRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    MacAddressRecognizer,
    PhoneRecognizer,
    UsSsnRecognizer,
)

from redaction.normal import normalise
from redaction.redactor import Span
from redaction.secrets import PATTERNS, PLACEHOLDERS

LANGUAGE = "en"
THRESHOLD = 0.4
PHONE_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AT", "IN", "AU", "BR", "JP")
_SUFFIXES = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


class BlankNlp(NlpEngine):
    """Tokens only: what Presidio needs to look for context words."""

    engine_name = "blank"
    is_available = True

    def __init__(self) -> None:
        self.nlp: Any = None

    def load(self) -> None:
        self.nlp = spacy.blank(LANGUAGE)

    def is_loaded(self) -> bool:
        return self.nlp is not None

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        tokens = self.nlp.make_doc(text)
        return NlpArtifacts(
            entities=[],
            tokens=tokens,
            tokens_indices=[token.idx for token in tokens],
            lemmas=[token.text.lower() for token in tokens],
            nlp_engine=self,
            language=language,
        )

    def process_batch(
        self,
        texts: Iterable[str],
        language: str,
        batch_size: int = 1,
        n_process: int = 1,
        **kwargs: Any,
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        return ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word: str, language: str) -> bool:
        return word.lower() in self.nlp.Defaults.stop_words

    def is_punct(self, word: str, language: str) -> bool:
        return not any(character.isalnum() for character in word)

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return [LANGUAGE]


class _Emails(EmailRecognizer):
    """The suffix list from the package, never from a network."""

    def validate_result(self, pattern_text: str) -> bool:
        return bool(_SUFFIXES(pattern_text).fqdn)


class _Ibans(IbanRecognizer):
    """Also in lower case, as people type it; the checksum decides."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: Any = None) -> Any:
        return super().analyze(text.upper() if len(text.upper()) == len(text) else text, entities, nlp_artifacts, regex_flags)


class _Phones(PhoneRecognizer):
    """A bare run of digits is a phone number only beside a word that says so: timestamps and ids look the same."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> Any:
        return [found for found in super().analyze(text, entities, nlp_artifacts) if _is_phone(text, found.start, found.end)]


class _Cards(CreditCardRecognizer):
    """A number with a card's checksum is no card right after a word for an order or an id (one number in ten has the checksum)."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: Any = None) -> Any:
        found = super().analyze(text, entities, nlp_artifacts, regex_flags)
        return [one for one in found or [] if not _ID_WORD.search(text, max(0, one.start - 24), one.start)]


_PHONE_WORD = re.compile(r"(?i)\b(?:phone|tel|telephone|call|mobile|cell|fax|whatsapp|sms|dial|telefon|handy|numero)\b")
_ID_WORD = re.compile(r"(?i)\b(?:order|invoice|id|ref|reference|tracking|ticket|request|trace)\b[\s:#=\"'-]{0,4}\Z")


def _is_phone(text: str, start: int, end: int) -> bool:
    value = text[start:end]
    if text[end : end + 1] == "." and text[end + 1 : end + 2].isdigit():
        return False
    if value.startswith("+") or not value.strip().isdigit():
        return True
    return bool(_PHONE_WORD.search(text, max(0, start - 40), start))


class _Secrets(PatternRecognizer):
    """A documentation placeholder is no secret."""

    def invalidate_result(self, pattern_text: str) -> bool:
        return any(placeholder in pattern_text for placeholder in PLACEHOLDERS)


class PatternFinder:
    """Presidio over normalised text; spans come back in the original's offsets."""

    def __init__(self, thresholds: Mapping[str, float] | None = None) -> None:
        self._engine = build()
        self._thresholds = dict(thresholds or {})

    def find(self, text: str) -> Sequence[Span]:
        if not text.strip():
            return []
        normal = normalise(text)
        found = self._engine.analyze(normal.text, language=LANGUAGE)
        spans = []
        for result in found:
            if result.score < self._thresholds.get(result.entity_type, THRESHOLD):
                continue
            start, end = _value_only(normal.text, result.entity_type, result.start, result.end)
            if _is_tag(normal.text, start, end):
                continue
            spans.append(Span(result.entity_type, *normal.original(start, end), result.score))
        return spans


_VALUE = re.compile(r"[:=]\s{0,3}[\"']?([^\s\"',;&<>]{6,256})\Z")


def _value_only(text: str, kind: str, start: int, end: int) -> tuple[int, int]:
    """Of `password=hunter22` only the value is replaced."""
    if kind == "PASSWORD":
        match = _VALUE.search(text, start, end)
        if match:
            return match.span(1)
    return start, end


def _is_tag(text: str, start: int, end: int) -> bool:
    """Our own tags are not data, so redacting twice changes nothing."""
    return text[start - 1 : start] == "<" and text[end : end + 1] == ">" and text[start:end].replace("_", "").isupper()


def build() -> AnalyzerEngine:
    """The analyzer with every recognizer of this project."""
    nlp = BlankNlp()
    nlp.load()
    registry = RecognizerRegistry(supported_languages=[LANGUAGE])
    for recognizer in _recognizers():
        registry.add_recognizer(recognizer)
    return AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=[LANGUAGE])


def _recognizers() -> list[Any]:
    found: list[Any] = [
        _Emails(),
        _Cards(),
        _Ibans(),
        IpRecognizer(),
        MacAddressRecognizer(),
        CryptoRecognizer(),
        UsSsnRecognizer(),
        _Phones(supported_regions=PHONE_REGIONS),
    ]
    by_kind: dict[str, list[Any]] = {}
    for pattern in PATTERNS:
        by_kind.setdefault(pattern.kind, []).append(Pattern(pattern.name, pattern.regex, pattern.score))
    # Case matters in keys, so Presidio's default of ignoring it is taken away.
    make = partial(_Secrets, supported_language=LANGUAGE, global_regex_flags=re.MULTILINE)
    return found + [make(supported_entity=kind, patterns=patterns) for kind, patterns in by_kind.items()]
