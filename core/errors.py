"""The one error tree.

A denial is a value (`core.decision.Decision`), never an exception. What is raised says what happened, where, and what
to do about it; no message may hold a secret or personal data, because messages are logged.

    PortcullisError
    ├── BadInput             what was sent cannot be read or is not allowed in this form       HTTP 400, exit 2
    │   └── TooLarge         too many bytes or too deeply nested                               HTTP 413, exit 2
    ├── ConfigError          the configuration cannot be used                                  exit 2
    ├── Unauthenticated      nobody proved who is asking                                       HTTP 401, exit 1
    ├── Forbidden            somebody known asked for what their roles do not hold             HTTP 403, exit 1
    │   └── NeedsApproval    one person asked for what takes more than one                     HTTP 403, exit 1
    ├── NotFound             no such thing                                                     HTTP 404, exit 2
    ├── Conflict             it exists already, or it changed meanwhile                        HTTP 409, exit 2
    ├── Refused              a recorded denial, raised where a caller asked for an action      HTTP 403, exit 1
    ├── Broken               something failed verification                                     HTTP 422, exit 1
    │   ├── InvalidProof     a Merkle proof, checkpoint or package
    │   ├── SealBroken       sealed weights
    │   └── BadSignature     a signature, or its key
    └── Unavailable          something we depend on does not answer                            HTTP 503, exit 3
        ├── EngineUnavailable
        └── EvidenceUnavailable
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from core.decision import Decision


class PortcullisError(Exception):
    """The root. `message` is for people, `where` names the place (a path in a document, a file, a field)."""

    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 2
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class BadInput(PortcullisError):
    http_status = 400
    code = "bad_input"


class TooLarge(BadInput):
    http_status = 413
    code = "too_large"


class ConfigError(PortcullisError):
    code = "bad_configuration"


class Unauthenticated(PortcullisError):
    http_status = 401
    exit_status = 1
    code = "unauthenticated"


class Forbidden(PortcullisError):
    http_status = 403
    exit_status = 1
    code = "forbidden"


class NeedsApproval(Forbidden):
    code = "needs_approval"


class NotFound(PortcullisError):
    http_status = 404
    code = "not_found"


class Conflict(PortcullisError):
    http_status = 409
    code = "conflict"


class Refused(PortcullisError):
    """A denial that has been recorded; carries the decision so that a door can show it whole."""

    http_status = 403
    exit_status = 1
    code = "refused"

    def __init__(self, message: str, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


class Broken(PortcullisError):
    http_status = 422
    exit_status = 1
    code = "broken"


class InvalidProof(Broken):
    code = "invalid_proof"


class SealBroken(Broken):
    code = "seal_broken"


class BadSignature(Broken):
    code = "bad_signature"


class Unavailable(PortcullisError):
    http_status = 503
    exit_status = 3
    code = "unavailable"


class EngineUnavailable(Unavailable):
    code = "engine_unavailable"


class EvidenceUnavailable(Unavailable):
    code = "evidence_unavailable"
