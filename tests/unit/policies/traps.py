"""Every trap the linter knows, as a rule that has it and the right form of the same rule, with the input that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CHECKED = "default checked := false\n\nchecked if is_string(input.request.namespace)\n\n"
SHARED = """\
five(x) if x == 5

short(x) if count(x) < 3

word(x) := "ml" if x == "ml"

named(use) if is_string(use.name)

teamed if is_string(input.config.team)
"""


@dataclass(frozen=True)
class Case:
    """`silent`: the engines in which `bad` denies nothing though it should; the good form denies in each."""

    code: str
    bad: str
    good: str
    silent: tuple[str, ...]
    found: str = ""
    input: dict[str, Any] = field(default_factory=dict)


def deny(body: str, head: str = '{"path": "", "args": {}}') -> str:
    return f"deny contains {head} if {{\n" + "".join(f"\t{line.strip()}\n" for line in body.split(";")) + "}\n"


IN_OPA = ("opa", "wasm")
EVERYWHERE = ("opa", "regorus", "wasm")
_HELPER = deny("not good") + "\n"
_CONTAINER = {"request": {"containers": [{"path": "p", "name": "c", "image": {"registry": "r", "repository": "ml"}}]}}
_USE = {"request": {"models": [{"path": "p"}]}}
_NAMED_TWICE = {"request": {"models": [{"path": "p", "name": "a"}, {"path": "q"}]}}


def under_not(expression: str, helper: str, found: str, **more: Any) -> Case:
    return Case("undefined-under-not", deny(f"not {expression}"), f"{_HELPER}good if {helper}\n", IN_OPA, found, **more)


CASES: dict[str, Case] = {
    "a built-in under not": under_not("is_string(input.config.team)", "is_string(input.config.team)", "input.config.team"),
    "a function under not": under_not(
        "five(input.config.gpu_limit_shares)", "five(input.config.gpu_limit_shares)", "gpu_limit_shares"
    ),
    "in under not": under_not('input.config.team in {"a"}', 'input.config.team in {"a"}', "input.config.team"),
    "in a missing collection under not": under_not(
        '"a" in input.facts.models', '"a" in input.facts.models', "input.facts.models"
    ),
    "!= under not": under_not('input.config.team != "a"', 'input.config.team != "a"', "input.config.team"),
    "< under not": under_not("input.config.gpu_limit_shares < 5", "input.config.gpu_limit_shares < 5", "gpu_limit_shares"),
    "> under not": under_not("input.config.gpu_limit_shares > 5", "input.config.gpu_limit_shares > 5", "gpu_limit_shares"),
    "<= under not": under_not("5 <= input.config.gpu_limit_shares", "5 <= input.config.gpu_limit_shares", "gpu_limit_shares"),
    ">= under not": under_not("5 >= input.config.gpu_limit_shares", "5 >= input.config.gpu_limit_shares", "gpu_limit_shares"),
    "arithmetic under not": under_not(
        "input.config.gpu_limit_shares + 1 == 2", "input.config.gpu_limit_shares + 1 == 2", "gpu_limit_shares"
    ),
    "an array under not": under_not('[input.config.team] == ["a"]', '[input.config.team] == ["a"]', "input.config.team"),
    "a set under not": under_not('{input.config.team} == {"a"}', 'input.config.team == "a"', "input.config.team"),
    "an object under not": under_not(
        '{"t": input.config.team} == {"t": "a"}', '{"t": input.config.team} == {"t": "a"}', "input.config.team"
    ),
    "a literal on the right under not": under_not(
        "input.request.namespace == [input.config.team]", "input.request.namespace == [input.config.team]", "input.config.team"
    ),
    "a call inside a call under not": under_not(
        'startswith(concat("/", ["a", input.config.team]), "b")',
        'startswith(concat("/", ["a", input.config.team]), "b")',
        "input.config.team",
    ),
    "a call without an answer under not": under_not(
        'word(input.request.namespace) == "ml"', 'word(input.request.namespace) == "ml"', "word(input.request.namespace)"
    ),
    "a comparison of a comparison under not": under_not(
        '(input.config.team == "a") == true', '(input.config.team == "a") == true', "input.config.team"
    ),
    "a computed key under not": under_not(
        'input.config.modes[input.config.team] == "off"', 'input.config.modes[input.config.team] == "off"', "input.config.team"
    ),
    "a computed key of a bare reference under not": under_not(
        "input.config.modes[input.config.team]", "input.config.modes[input.config.team]", "input.config.team"
    ),
    "a field with a default, that a document may leave out": under_not(
        "input.config.require_image_digest != true", "input.config.require_image_digest != true", "require_image_digest"
    ),
    "a rule that may be undefined under not": Case(
        "undefined-under-not",
        deny("not short(team)") + "\nteam := input.config.team\n",
        _HELPER + "good if short(input.config.team)\n",
        IN_OPA,
        "input.config.team",
    ),
    "an iteration's field under not": Case(
        "undefined-under-not",
        deny('some container in input.request.containers; not container.image.digest in {"a"}'),
        deny("some container in input.request.containers; not pinned(container)")
        + '\npinned(container) if container.image.digest in {"a"}\n',
        IN_OPA,
        "container.image.digest",
        _CONTAINER,
    ),
    "an iteration's field as an argument under not": Case(
        "undefined-under-not",
        deny("some container in input.request.containers; not short(container.image.digest)"),
        deny("some container in input.request.containers; not pinned(container)")
        + "\npinned(container) if short(container.image.digest)\n",
        IN_OPA,
        "container.image.digest",
        _CONTAINER,
    ),
    "a parameter's field under not": Case(
        "undefined-under-not",
        deny("some use in input.request.models; unfit(use)") + '\nunfit(use) if not use.version in {"1"}\n',
        deny("some use in input.request.models; not fit(use)") + '\nfit(use) if use.version in {"1"}\n',
        IN_OPA,
        "use.version",
        _USE,
    ),
    "proved for another element": Case(
        "undefined-under-not",
        deny('some a in input.request.models; named(a); some b in input.request.models; a.path != b.path; not b.name in {"x"}'),
        deny("some a in input.request.models; named(a); some b in input.request.models; a.path != b.path; not called(b)")
        + '\ncalled(use) if use.name in {"x"}\n',
        IN_OPA,
        "b.name",
        _NAMED_TWICE,
    ),
    "under not in a comprehension": Case(
        "undefined-under-not",
        deny('count([c | some c in input.request.containers; not c.image.digest in {"a"}]) > 0'.replace("; not", "\n\tnot")),
        deny("count([c | some c in input.request.containers\n\tnot pinned(c)]) > 0")
        + '\npinned(container) if container.image.digest in {"a"}\n',
        IN_OPA,
        "c.image.digest",
        _CONTAINER,
    ),
    "a call without an answer in an array": Case(
        "undefined-in-literal",
        deny('kinds := [word(input.request.namespace), "x"]; "x" in kinds'),
        deny('kinds := [better(input.request.namespace), "x"]; "x" in kinds')
        + '\ndefault better(_) := ""\n\nbetter(x) := "ml" if x == "ml"\n',
        EVERYWHERE,
        "word(input.request.namespace)",
    ),
    "a call without an answer in a set": Case(
        "undefined-in-literal",
        deny('kinds := {word(input.request.namespace), "x"}; "x" in kinds'),
        deny('kinds := {better(input.request.namespace), "x"}; "x" in kinds')
        + '\ndefault better(_) := ""\n\nbetter(x) := "ml" if x == "ml"\n',
        EVERYWHERE,
        "word(input.request.namespace)",
    ),
    "a call without an answer in a denial": Case(
        "undefined-in-literal",
        deny("input.request.gpu_shares > 0", '{"path": "", "args": {"kind": word(input.request.namespace)}}'),
        deny("input.request.gpu_shares > 0", '{"path": "", "args": {"kind": better(input.request.namespace)}}')
        + '\ndefault better(_) := ""\n\nbetter(x) := "ml" if x == "ml"\n',
        EVERYWHERE,
        "word(input.request.namespace)",
    ),
    "a call without an answer in a comprehension's head": Case(
        "undefined-in-literal",
        deny("count([word(c.name) | some c in input.request.containers]) > 0"),
        deny("count([better(c.name) | some c in input.request.containers]) > 0")
        + '\ndefault better(_) := ""\n\nbetter(x) := "ml" if x == "ml"\n',
        EVERYWHERE,
        "word(c.name)",
        _CONTAINER,
    ),
    "an optional field compared": Case(
        "optional-compared",
        deny('input.config.team != "ml"'),
        deny('input.config.team != "ml"') + "\n" + deny("not teamed"),
        EVERYWHERE,
        "input.config.team",
    ),
    "an optional field compared, through a variable": Case(
        "optional-compared",
        deny("limit := input.config.gpu_limit_shares; input.request.gpu_shares > limit"),
        deny("limit := input.config.gpu_limit_shares; input.request.gpu_shares > limit")
        + "\n"
        + deny("not input.config.gpu_limit_shares"),
        EVERYWHERE,
        "input.config.gpu_limit_shares",
    ),
    "an optional field compared in a helper": Case(
        "optional-compared",
        deny("astray") + '\nastray if input.config.team != "ml"\n',
        deny("not at_home") + '\nat_home if input.config.team == "ml"\n',
        EVERYWHERE,
        "input.config.team",
    ),
    "an optional field compared in a helper under two nots": Case(
        "optional-compared",
        deny("not fine") + '\nfine if not astray\n\nastray if input.config.team != "ml"\n',
        deny("not fine") + '\nfine if input.config.team == "ml"\n',
        EVERYWHERE,
        "input.config.team",
    ),
    "an optional field in a built-in": Case(
        "optional-compared",
        deny('startswith(input.config.team, "x")'),
        deny("not fits") + '\nfits if startswith(input.config.team, "ml")\n',
        EVERYWHERE,
        "input.config.team",
    ),
    "an optional field of an element": Case(
        "optional-compared",
        deny('some use in input.request.models; use.version != "1"'),
        deny("some use in input.request.models; not first(use)") + '\nfirst(use) if use.version == "1"\n',
        EVERYWHERE,
        "input.request.models[_].version",
        _USE,
    ),
    "an optional field compared in a comprehension": Case(
        "optional-compared",
        deny('count([use | some use in input.request.models\n\tuse.version != "1"]) > 0'),
        deny("count([use | some use in input.request.models\n\tnot first(use)]) > 0") + '\nfirst(use) if use.version == "1"\n',
        EVERYWHERE,
        "input.request.models[_].version",
        _USE,
    ),
    "an optional field in arithmetic": Case(
        "optional-compared",
        deny("left := input.config.gpu_limit_shares - 1; left < input.request.gpu_shares"),
        deny("not left") + "\nleft if input.config.gpu_limit_shares - 1 >= input.request.gpu_shares\n",
        EVERYWHERE,
        "input.config.gpu_limit_shares",
    ),
    "args with an optional field": Case(
        "vanishing-denial",
        deny("input.request.gpu_shares > 0", '{"path": "", "args": {"team": input.config.team}}'),
        deny("input.request.gpu_shares > 0", '{"path": "", "args": {"team": object.get(input.config, "team", "")}}'),
        EVERYWHERE,
        "input.config.team",
    ),
    "args with an optional field, made in the body": Case(
        "vanishing-denial",
        deny('input.request.gpu_shares > 0; args := {"team": input.config.team}', '{"path": "", "args": args}'),
        deny(
            'input.request.gpu_shares > 0; args := {"team": object.get(input.config, "team", "")}', '{"path": "", "args": args}'
        ),
        EVERYWHERE,
        "input.config.team",
    ),
    "args with a variable that may have no value": Case(
        "vanishing-denial",
        deny("input.request.gpu_shares > 0; team := input.config.team", '{"path": "", "args": {"team": team}}'),
        deny(
            'input.request.gpu_shares > 0; team := object.get(input.config, "team", "")', '{"path": "", "args": {"team": team}}'
        ),
        EVERYWHERE,
        "input.config.team",
    ),
    "args with a text made of an optional field": Case(
        "vanishing-denial",
        deny("some use in input.request.models", '{"path": use.path, "args": {"model": concat("@", [use.name, "1"])}}'),
        deny("some use in input.request.models", '{"path": use.path, "args": {"model": object.get(use, "name", "")}}'),
        EVERYWHERE,
        "input.request.models[_].name",
        _USE,
    ),
    "a path that is an optional field": Case(
        "vanishing-denial",
        deny("input.request.gpu_shares > 0", '{"path": input.config.team, "args": {}}'),
        deny("input.request.gpu_shares > 0", '{"path": object.get(input.config, "team", ""), "args": {}}'),
        EVERYWHERE,
        "input.config.team",
    ),
    "iterating what checked does not ask for": Case(
        "unchecked-optional",
        deny("some model in input.facts.models; model.revoked == true"),
        deny("some model in input.facts.models; model.revoked == true") + "\n" + deny("not input.facts.models"),
        EVERYWHERE,
        "input.facts.models",
    ),
    "every of what checked does not ask for": Case(
        "unchecked-optional",
        deny("every model in input.facts.models { model.revoked == true }"),
        deny("not all_fit") + "\nall_fit if {\n\tevery model in input.facts.models { model.revoked == false }\n}\n",
        EVERYWHERE,
        "input.facts.models",
    ),
    "an optional field as an argument": Case(
        "unchecked-optional",
        deny("alien(input.config.team)") + '\nalien(team) if team != "ml"\n',
        deny("not native(input.config)") + '\nnative(config) if config.team == "ml"\n',
        EVERYWHERE,
        "input.config.team",
    ),
    "a misspelt field": Case(
        "unknown-path",
        deny('input.request.namspace == "team-a"'),
        deny('input.request.namespace == "team-a"'),
        EVERYWHERE,
        "input.request.namspace",
    ),
    "a misspelt field under not": Case(
        "unknown-path",
        deny("input.request.gpu_shares > 0; not input.request.known_kin == false"),
        deny("input.request.gpu_shares > 0; not input.request.known_kind == false"),
        (),
        "input.request.known_kin",
    ),
    "a misspelt field of an element": Case(
        "unknown-path",
        deny('some c in input.request.containers; c.nam == "c"'),
        deny('some c in input.request.containers; c.name == "c"'),
        EVERYWHERE,
        "input.request.containers[_].nam",
        _CONTAINER,
    ),
    "a misspelt key of object.get": Case(
        "unknown-path",
        deny('object.get(input.request, "namespac", "") == "team-a"'),
        deny('object.get(input.request, "namespace", "") == "team-a"'),
        EVERYWHERE,
        "input.request.namespac",
    ),
    "a misspelt field of an argument": Case(
        "unknown-path",
        deny("some c in input.request.containers; odd(c)") + '\nodd(c) if c.nam == "c"\n',
        deny("some c in input.request.containers; odd(c)") + '\nodd(c) if c.name == "c"\n',
        EVERYWHERE,
        "input.request.containers[_].nam",
        _CONTAINER,
    ),
    "a field of a text": Case(
        "unknown-path",
        deny('input.request.namespace.name == "team-a"'),
        deny('input.request.namespace == "team-a"'),
        EVERYWHERE,
        "input.request.namespace.name",
    ),
    "another domain's field": Case(
        "unknown-path",
        deny('input.request.subject == "Deployment/chat"; input.request.route == "x"'),
        deny('input.request.subject == "Deployment/chat"'),
        EVERYWHERE,
        "input.request.route",
    ),
}

SAFE: dict[str, str] = {
    "a reference under not": deny("not input.config.team"),
    "a reference compared with a value under not": deny('not input.config.team == "ml"'),
    "two references compared under not": deny("not input.config.team == input.config.tenant"),
    "a negative number under not": deny("not input.config.gpu_limit_shares == -1"),
    "a bound variable as an argument under not": deny("some c in input.request.containers; not pinned(c)")
    + "\npinned(c) if is_string(c.image.digest)\n",
    "a required field in a call under not": deny("not is_string(input.request.namespace)"),
    "a required field's element under not": deny('some c in input.request.containers; not c.name in {"a"}'),
    "proved by a type test before": deny('is_string(input.config.team); not input.config.team in {"a"}'),
    "proved by a helper before": deny('teamed; not input.config.team in {"a"}'),
    "a rule that may be undefined, proved before": deny('is_string(team); not team in {"a"}')
    + "\nteam := input.config.team if input.request.gpu_shares > 0\n",
    "proved by a helper of an element": deny('some use in input.request.models; named(use); not use.name in {"a"}'),
    "proved after, since order means nothing": deny('not input.config.team in {"a"}; teamed'),
    "object.get under not": deny('not object.get(input.config, "team", "") in {"a"}'),
    "a comprehension under not": deny("not count([c | some c in input.request.containers]) == 1"),
    "a literal of sure values under not": deny('not {input.request.namespace, "a"} == {"a"}'),
    "a set rule under not": deny('not "a" in names') + "\nnames contains c.name if some c in input.request.containers\n",
    "a rule with a default under not": deny("not five(size)")
    + "\ndefault size := 0\n\nsize := input.config.gpu_limit_shares\n",
    "a function with a default inside a call under not": deny("not five(sized(input.request.gpu_shares))")
    + "\ndefault sized(_) := 0\n\nsized(x) := 1 if x > 3\n",
    "an unconditional function in a literal": deny(
        "input.request.gpu_shares > 0", '{"path": "", "args": {"x": twice(input.request.kind)}}'
    )
    + '\ntwice(x) := concat("", [x, x])\n',
    "an optional field compared after a test": deny('is_string(input.config.team); input.config.team != "ml"'),
    "an optional field compared after a bare reference": deny('input.config.team; input.config.team != "ml"'),
    "args under a guard": deny("teamed", '{"path": "", "args": {"team": input.config.team}}'),
    "a field with a default compared": deny("input.config.require_image_digest == true"),
    "a list with a default iterated": deny('some h in input.request.host_access; h.kind == "host_pid"'),
    "a list's element by index": deny('some i; input.request.containers[i].name == "x"'),
    "a list's element by wildcard": deny('input.request.containers[_].name == "x"'),
    "an alias of the input": "import input.request as asked\n\n" + deny('asked.namespace == "x"'),
}
