"""`policy new DOMAIN/RULE`: the two files of a new rule, with METADATA filled in and a test that passes."""

from __future__ import annotations

from pathlib import Path

from core.decision import DOMAINS
from core.errors import BadInput, Conflict, PortcullisError
from policies.check import RULE_NAME
from policies.syntax import dotted
from policies.tree import SHIPPED

_SUBJECTS = {
    "admission": ("the namespace", "input.request.namespace", '"request": {"namespace": "forbidden"}'),
    "gateway": ("the model", "input.request.model", '"request": {"model": "forbidden"}'),
    "weights": ("the model", "input.request.model", '"request": {"model": "forbidden"}'),
    "bundle": ("the proposal", "input.request.subject", '"request": {"subject": "forbidden"}'),
    "lineage": ("the model", "input.request.model", '"request": {"model": "forbidden"}'),
}
"""Per domain: what the example rule looks at, where it stands in the input, and an input that it denies."""

_RULE = """\
# METADATA
# title: {title}
# description: Denies {what} "forbidden". Write here what the rule is for.
# custom:
#   severity: medium
#   message: "{what} {{found}} is not allowed"
#   remediation: Write here what a person should do about it.
#   controls: []
package {package}

# True only when everything that this rule reads is there; a mandatory rule that is not checked denies.
default checked := false

checked if is_string({field})

deny contains {{"path": "{path}", "args": {{"found": {field}}}}} if {{
	{field} == "forbidden"
}}
"""

_TEST = """\
package {test_package}

import data.{package} as rule

test_forbidden_is_denied if {{
	rule.deny == {{{{"path": "{path}", "args": {{"found": "forbidden"}}}}}} with input as {{{denied}}}
}}

test_other_is_not_denied if {{
	count(rule.deny) == 0 with input as {{{allowed}}}
}}

test_checked_needs_the_field if {{
	rule.checked with input as {{{allowed}}}
	not rule.checked with input as {{"request": {{}}}}
}}
"""


def new_rule(folder: Path, rule_id: str) -> tuple[Path, Path]:
    """Writes `rules/DOMAIN/RULE/RULE.rego` and `RULE_test.rego` below `folder`, which may be new; gives both paths.

    BadInput for a name that no rule may have, Conflict when the rule exists there or among the shipped ones.
    """
    domain, slash, name = rule_id.partition("/")
    if not slash or domain not in DOMAINS or not RULE_NAME.match(name) or len(name) > 60:
        raise BadInput(
            f"{rule_id[:100]!r} is no name for a rule: write DOMAIN/RULE, DOMAIN one of {', '.join(DOMAINS)}, "
            "RULE in lower case with digits and dashes"
        )
    place = Path("rules", domain, name)
    for taken in (folder / place, SHIPPED / place):
        if taken.exists():
            raise Conflict(f"the rule {rule_id} exists already", where=str(taken))
    what, field, denied = _SUBJECTS[domain]
    values = {
        "title": name.replace("-", " ").capitalize(),
        "what": what,
        "package": dotted(("portcullis", "rules", domain, name)),
        "test_package": dotted(("portcullis", "rules", domain, f"{name}_test")),
        "field": field,
        "path": field.removeprefix("input."),
        "denied": denied,
        "allowed": denied.replace("forbidden", "fine"),
    }
    rule, test = folder / place / f"{name}.rego", folder / place / f"{name}_test.rego"
    try:
        rule.parent.mkdir(parents=True)
        rule.write_text(_RULE.format(**values), encoding="utf-8")
        test.write_text(_TEST.format(**values), encoding="utf-8")
    except OSError as error:
        raise PortcullisError(f"cannot be written: {error.strerror}", where=str(rule)) from error
    return rule, test
