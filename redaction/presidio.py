"""Presidio as the analyzer, with a blank pipeline (no model, no download) and recognizers for secrets.

Nothing here reaches for a network: the e-mail recognizer's suffix list is the one inside the `tldextract` package. Names of
people and places are not found yet; that is why the default log policy withholds message content.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
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

from core.errors import ConfigError
from redaction.normal import normalise
from redaction.policy import THRESHOLD
from redaction.redactor import Span
from redaction.secrets import PATTERNS, PLACEHOLDERS

LANGUAGE = "en"
PHONE_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AT", "IN", "AU", "BR", "JP")
_SUFFIXES = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


_TOKEN = re.compile(r"\w+|[^\w\s]+")


class _Keywords(list[str]):
    """Asked whether it has a word, once for each word beside each finding."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__(words)
        self._known = frozenset(self)

    def __contains__(self, word: object) -> bool:
        return word in self._known


class _Context(LemmaContextAwareEnhancer):
    """Presidio's, but the token at a finding is looked up, not searched for from the text's beginning: many findings in one text took
    a time that grew with the square of their number."""

    @staticmethod
    def _find_index_of_match_token(
        word: str,  # noqa: ARG004  # as Presidio calls it
        start: int,
        tokens: Sequence[str],
        tokens_indices: list[int],
    ) -> int:
        at = max(0, bisect_right(tokens_indices, start) - 1)
        if tokens_indices[at] + len(tokens[at]) <= start:  # between two tokens: the next one
            at += 1
        if at == len(tokens):
            raise ValueError("no token stands at a finding")
        return at


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
        """Words and runs of signs. spaCy's tokenizer takes a time that grows with the square of a run of signs, and remembers every
        word that it ever saw."""
        found = list(_TOKEN.finditer(text))
        words = [match.group() for match in found]
        artifacts = NlpArtifacts(
            entities=[],
            tokens=words,  # type: ignore[arg-type]  # of a token, only its length is asked
            tokens_indices=[match.start() for match in found],
            lemmas=[word.lower() for word in words],
            nlp_engine=self,
            language=language,
        )
        artifacts.keywords = _Keywords(artifacts.keywords)
        return artifacts

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


class PortcullisAnalyzer(AnalyzerEngine):
    """Presidio's analyzer with this project's recognizers, for whoever has Presidio in place already.

    What is found is found in the normalised text (full-width forms, invisible characters, escapes) and given in the offsets of
    the text as it came. `entities` are what is looked for when a call names none; `threshold` is the score from which a finding counts.
    """

    def __init__(self, *, entities: Sequence[str] | None = None, threshold: float = THRESHOLD) -> None:
        """ConfigError for an entity that no recognizer finds."""
        nlp = BlankNlp()
        nlp.load()
        registry = RecognizerRegistry(supported_languages=[LANGUAGE])
        for recognizer in _recognizers():
            registry.add_recognizer(recognizer)
        super().__init__(
            registry=registry,
            nlp_engine=nlp,
            supported_languages=[LANGUAGE],
            default_score_threshold=threshold,
            context_aware_enhancer=_Context(),
        )
        known = set(self.get_supported_entities(LANGUAGE))
        unknown = sorted(set(entities or ()) - known)
        if unknown:
            raise ConfigError(f"nothing finds {unknown[0]}; known are {', '.join(sorted(known))}", where="entities")
        self._entities = None if entities is None else list(entities)

    def analyze(
        self, text: str, language: str = LANGUAGE, entities: list[str] | None = None, *more: Any, **options: Any
    ) -> list[RecognizerResult]:
        """As Presidio's; ValueError, as there, for a language that is not supported."""
        if not text.strip():
            return []
        normal = normalise(text)
        if normal.text != text:
            options.pop("nlp_artifacts", None)  # they are the other spelling's
        found = super().analyze(normal.text, language, entities or self._entities, *more, **options)
        results = []
        for result in found:
            start, end = _value_only(normal.text, result.entity_type, result.start, result.end)
            if not _is_tag(normal.text, start, end):
                result.start, result.end = normal.original(start, end)
                results.append(result)
        return results


class PatternFinder:
    """The analyzer as `Redactor` asks it."""

    def __init__(self, analyzer: PortcullisAnalyzer | None = None) -> None:
        self._analyzer = analyzer or PortcullisAnalyzer()

    def find(self, text: str) -> Sequence[Span]:
        return [Span(found.entity_type, found.start, found.end, found.score) for found in self._analyzer.analyze(text)]


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
