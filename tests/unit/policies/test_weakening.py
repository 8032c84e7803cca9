"""What weakens and what does not, told from two documents; held against the look-up that decisions are made with."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import config_overlay as overlay
from policies import weakening
from policies.config import Document
from policies.config_lookup import modes_by_scope, narrowest
from policies.weakening import weakenings

NOW = 1_800_000_000  # 2027-01-15
NARROW: dict[str, Any] = {
    "id": "EX-1", "rule": "admission/gpu-quota", "tenant": "acme", "owner": "ann", "reason": "move", "ticket": "T-1",
    "expires": "2027-02-01T00:00:00Z", "namespaces": ["prod"], "models": ["llama-3"], "subjects": ["Deployment/chat"],
}  # fmt: skip
BASE: dict[str, Any] = {
    "tenants": {
        "acme": {
            "images": [{"registry": "r.example", "repository": "ml"}],
            "require_image_digest": True,
            "required_approvals": 3,
            "teams": {"core": {"namespaces": ["prod"], "gpu_quota": "4"}, "lab": {"namespaces": ["lab"]}},
        }
    },
    "modes": [
        {"rule": "admission/approved-model", "mode": "warn"},
        {"rule": "admission/approved-model", "mode": "enforce", "namespace": "prod"},
        {"rule": "admission/gpu-quota", "mode": "dryrun", "tenant": "acme", "team": "lab"},
        {"rule": "gateway/model-access", "mode": "warn", "tenant": "acme", "team": "lab"},
        {"rule": "gateway/mine", "mode": "enforce", "tenant": "acme"},
        {"rule": "weights/key-release", "mode": "off", "tenant": "acme", "model": "m"},
        {"rule": "weights/key-release", "mode": "warn", "model": "m@1"},
    ],
    "exemptions": [NARROW],
    "obligations": [{"tenant": "acme", "max_tokens": 100, "headers": {"x-ai": "yes"}}],
    "accelerators": {"nvidia.com/gpu": "1", "example.com/npu": "1", "imex.nvidia.com.deviceclass.resource.k8s.io/devices": "0"},
    "controller_namespaces": ["kube-system"],
}


def changed(path: str, value: Any = None) -> Document:
    """BASE with one value set, or taken out when it is None."""
    keyed, parts = overlay.keyed(BASE), overlay.parse_path(path)
    after = overlay.drop(keyed, parts) if value is None else overlay.put(keyed, parts, value)
    return overlay.validate(after, [])


def ways(path: str, value: Any = None) -> list[str]:
    return weakenings(changed("requests_per_minute", 60), changed(path, value), now_unix=NOW)


WEAKENS: dict[str, tuple[str, Any, str]] = {
    "a rule off": ("modes.gateway/purpose", {"mode": "off"}, "gateway/purpose: enforce becomes off everywhere"),
    "a rule that only warns, for one tenant": (
        "modes.gateway/purpose[tenant=acme]", {"mode": "warn"}, "gateway/purpose: enforce becomes warn for acme",
    ),
    "a mode weaker still": (
        "modes.admission/approved-model.mode", "dryrun", "admission/approved-model: warn becomes dryrun everywhere",
    ),
    "a narrower mode weaker": (
        "modes.admission/approved-model[namespace=prod].mode", "warn",
        "admission/approved-model: enforce becomes warn in namespace prod",
    ),
    "a stricter narrower mode taken away": (
        "modes.admission/approved-model[namespace=prod]", None,
        "admission/approved-model: enforce becomes warn in namespace prod",
    ),
    "a mode that weakens where a narrower one was strict": (
        "modes.admission/approved-model[model=llama-3]", {"mode": "warn"},
        "admission/approved-model: enforce becomes warn in namespace prod for model llama-3",
    ),
    "a weaker mode, told once where it is widest": (
        "modes.gateway/mine[model=llama-3]",
        {"mode": "off"},
        "gateway/mine: enforce becomes off for model llama-3",
    ),
    "a namespace that goes to a team with a weaker mode": (
        "tenants.acme.teams",
        {"core": {"namespaces": [], "gpu_quota": "4"}, "lab": {"namespaces": ["lab", "prod"]}},
        "admission/gpu-quota: enforce becomes dryrun in namespace prod, which goes to team lab of acme",
    ),
    "an exemption for every subject": (
        "exemptions.EX-2", NARROW | {"id": "EX-2", "subjects": ["*"]},
        "exemption EX-2 from admission/gpu-quota covers every subject",
    ),
    "an exemption for every namespace": (
        "exemptions.EX-2", NARROW | {"id": "EX-2", "namespaces": []},
        "exemption EX-2 from admission/gpu-quota holds in every namespace of acme",
    ),
    "an exemption for more than 90 days": (
        "exemptions.EX-2", NARROW | {"id": "EX-2", "expires": "2027-04-15T08:00:01Z"},
        "exemption EX-2 from admission/gpu-quota holds until 2027-04-15T08:00:01Z, more than 90 days",
    ),
    "an exemption made longer": (
        "exemptions.EX-1.expires", "2027-02-02T00:00:00Z",
        "exemption EX-1 from admission/gpu-quota holds until 2027-02-02T00:00:00Z instead of 2027-02-01T00:00:00Z",
    ),
    "an exemption for one more subject": (
        "exemptions.EX-1.subjects", ["Deployment/chat", "Job/train"],
        "exemption EX-1 from admission/gpu-quota covers more subjects",
    ),
    "an exemption for one more namespace": (
        "exemptions.EX-1.namespaces", ["prod", "lab"], "exemption EX-1 from admission/gpu-quota holds for more namespaces",
    ),
    "an exemption for every model": (
        "exemptions.EX-1.models", [], "exemption EX-1 from admission/gpu-quota holds for more models",
    ),
    "an exemption from another rule for every namespace": (
        "exemptions.EX-1", NARROW | {"rule": "admission/approved-images", "namespaces": []},
        "exemption EX-1 from admission/approved-images holds in every namespace of acme",
    ),
    "fewer approvals": ("tenants.acme.required_approvals", 2, "acme: 3 required approvals become 2"),
    "fewer approvals because nothing is said": ("tenants.acme.required_approvals", None, "acme: 3 required approvals become 2"),
    "images without digests": ("tenants.acme.require_image_digest", False, "acme: images need no digest any more"),
    "a whole registry": (
        "tenants.acme.images", [{"registry": "r.example"}], "acme: every image of the registry r.example is approved",
    ),
    "a whole registry of a new tenant": (
        "tenants.new", {"images": [{"registry": "r.example"}]}, "new: every image of the registry r.example is approved",
    ),
    "one more controller": (
        "controller_namespaces", ["kube-system", "lab"], "controllers in namespace lab may create workloads for others",
    ),
    "an accelerator that counts no more": (
        "accelerators.example.com/npu", None, "accelerator example.com/npu is not counted against quotas",
    ),
    "a device class that is no accelerator": (
        "accelerators.gpu.nvidia.com.deviceclass.resource.k8s.io/devices",
        "0",
        "accelerator gpu.nvidia.com.deviceclass.resource.k8s.io/devices is not counted against quotas",
    ),
    "an obligation taken away": ("obligations.acme.max_tokens", None, "acme: the obligation max_tokens is taken away"),
    "a header taken away": ("obligations.acme.headers", {}, "acme: the obligation header x-ai is taken away"),
}  # fmt: skip
ORDINARY: dict[str, tuple[str, Any]] = {
    "a larger quota": ("tenants.acme.teams.core.gpu_quota", "400"),
    "a higher rate": ("requests_per_minute", 10_000),
    "a new team": ("tenants.acme.teams.new", {"namespaces": ["new"], "gpu_quota": "1"}),
    "a new tenant": ("tenants.new", {"teams": {"t": {"namespaces": ["new"]}}}),
    "a namespace that nobody had, in a team with a weaker mode": ("tenants.acme.teams.lab.namespaces", ["lab", "new"]),
    "a grant": ("grants.g", {"tenant": "acme", "domain": "gateway", "model": "llama-3", "roles": ["service"]}),
    "one more repository": ("tenants.acme.images", [{"registry": "r.example", "repository": "ml"}, {"registry": "r.example", "repository": "web"}]),
    "a share": ("accelerators.nvidia.com/gpu", "1/7"),
    "a device class that is counted again": ("accelerators.imex.nvidia.com.deviceclass.resource.k8s.io/devices", "1"),
    "a device class that is refused again": ("accelerators.imex.nvidia.com.deviceclass.resource.k8s.io/devices", None),
    "one more accelerator": ("accelerators.example.com/tpu", "1"),
    "a narrow exemption": ("exemptions.EX-2", NARROW | {"id": "EX-2", "expires": "2027-04-15T08:00:00Z"}),
    "an exemption for a version of its model": ("exemptions.EX-1.models", ["llama-3@7"]),
    "an exemption of a team for its namespaces": (
        "exemptions.EX-2",
        NARROW | {"id": "EX-2", "namespaces": [], "teams": ["core"]},
    ),
    "an exemption at the gateway, which knows no namespaces": (
        "exemptions.EX-2",
        NARROW | {"id": "EX-2", "rule": "gateway/purpose", "namespaces": [], "subjects": ["llama-3@7"]},
    ),
    "an exemption that ends earlier": ("exemptions.EX-1.expires", "2027-01-20T00:00:00Z"),
    "an exemption taken away": ("exemptions.EX-1", None),
    "a wide exemption that counts nowhere": ("exemptions.EX-2", NARROW | {"id": "EX-2", "subjects": ["*"], "owner": " "}),
    "a wide exemption that is over": ("exemptions.EX-2", NARROW | {"id": "EX-2", "subjects": ["*"], "expires": "2027-01-15T08:00:00Z"}),
    "a weak mode taken away": ("modes.admission/approved-model", None),
    "a narrower mode as weak as the general one": ("modes.admission/approved-model[tenant=acme]", {"mode": "warn"}),
    "a stricter mode": ("modes.admission/gpu-quota[tenant=acme,team=lab].mode", "warn"),
    "more approvals": ("tenants.acme.required_approvals", 4),
    "no controllers": ("controller_namespaces", []),
    "a freeze": ("freezes.acme/model:llama-3", {"since": "2027-01-15T00:00:00Z", "reason": "leak"}),
    "another number of an obligation": ("obligations.acme.max_tokens", 200),
}  # fmt: skip


@pytest.mark.parametrize("name", WEAKENS)
def test_what_weakens_is_told_in_words(name: str) -> None:
    path, value, words = WEAKENS[name]
    assert ways(path, value) == [words]


@pytest.mark.parametrize("name", WEAKENS)
def test_the_way_back_weakens_nothing(name: str) -> None:
    path, value, _ = WEAKENS[name]
    assert weakenings(changed(path, value), changed("requests_per_minute", 60), now_unix=NOW) == []


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_done_every_day_does_not_weaken(name: str) -> None:
    assert ways(*ORDINARY[name]) == []


def test_a_mode_that_is_stricter_for_one_and_weaker_for_another() -> None:
    """Beside acme's mode for the model the one for the version was the stricter, everywhere else the weaker."""
    path = "modes.weights/key-release[model=m@1]"
    assert ways(path) == ["weights/key-release: warn becomes off for acme for model m@1"]
    back = weakenings(changed(path), changed("requests_per_minute", 60), now_unix=NOW)
    assert back == ["weights/key-release: enforce becomes warn for model m@1"]


def test_an_exemption_that_was_over_is_made_longer() -> None:
    over = changed("exemptions.EX-1.expires", "2027-01-01T00:00:00Z")
    assert weakenings(over, changed("requests_per_minute", 1), now_unix=NOW) == [
        "exemption EX-1 from admission/gpu-quota holds until 2027-02-01T00:00:00Z instead of 2027-01-01T00:00:00Z"
    ]


def test_an_exemption_that_never_counted_is_new_when_it_does() -> None:
    ownerless = changed("exemptions.EX-1", NARROW | {"owner": " ", "subjects": ["*"]})
    owned = changed("exemptions.EX-1", NARROW | {"subjects": ["*"]})
    assert weakenings(ownerless, owned, now_unix=NOW) == ["exemption EX-1 from admission/gpu-quota covers every subject"]


def test_an_exemption_for_every_subject_made_narrower() -> None:
    wide = changed("exemptions.EX-1", NARROW | {"subjects": ["*"], "namespaces": [], "models": []})
    assert weakenings(wide, changed("exemptions.EX-1", NARROW), now_unix=NOW) == []


def test_a_tenant_taken_away_lowers_what_it_asked_for() -> None:
    bare = Document.model_validate({"tenants": {"acme": {"required_approvals": 3, "require_image_digest": True}}})
    assert weakenings(bare, Document(), now_unix=NOW) == [
        "acme: 3 required approvals become 2",
        "acme: images need no digest any more",
    ]


def test_too_many_modes_at_once_are_taken_to_weaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weakening, "MAX_COMPARED", 2)
    (found,) = ways("modes.admission/approved-model[namespace=lab]", {"mode": "enforce"})
    assert found == "admission/approved-model: 1 of its modes change at once, more than can be compared"


# --- laws -------------------------------------------------------------------------------------------------------------

MODES = ("enforce", "warn", "dryrun", "off")
TENANTS, TEAMS, NAMESPACES = (None, "acme"), (None, "core"), (None, "prod")
SCOPED = (None, "m", "m@1", "m@2")
SCOPES = [
    {name: part for name, part in zip(("tenant", "team", "namespace", "model"), parts, strict=True) if part is not None}
    for parts in itertools.product(TENANTS, TEAMS, NAMESPACES, SCOPED)
    if parts[0] is not None or parts[1] is None
]
some_modes = st.lists(
    st.builds(
        lambda scope, mode: {"rule": "admission/gpu-quota", "mode": mode, **scope},
        st.sampled_from(SCOPES),
        st.sampled_from(MODES),
    ),
    max_size=6,
    unique_by=lambda mode: tuple(sorted((name, part) for name, part in mode.items() if name != "mode")),
).map(lambda modes: Document.model_validate({"modes": modes}))
"""Documents with modes of one rule in any scopes."""
PLACES = [
    (tenant, team, namespace, model)
    for tenant, team, namespace, model in itertools.product(
        (None, "acme", "other"), (None, "core", "other"), (None, "prod", "other"), (None, "m", "m@1", "m@2", "n@1")
    )
]


@settings(max_examples=300)
@given(some_modes, some_modes)
def test_modes_weaken_exactly_where_some_decision_could_be_laxer(before: Document, after: Document) -> None:
    """The look-up that decisions are made with, asked at every kind of place."""
    old, new = modes_by_scope(before).get("admission", {}), modes_by_scope(after).get("admission", {})
    rule = "admission/gpu-quota"
    laxer = any(
        MODES.index(narrowest(new, *place).get(rule, "enforce")) > MODES.index(narrowest(old, *place).get(rule, "enforce"))
        for place in PLACES
    )
    assert bool(weakenings(before, after, now_unix=NOW)) == laxer


@given(some_modes)
def test_a_document_is_no_weaker_than_itself(document: Document) -> None:
    assert weakenings(document, document.model_copy(deep=True), now_unix=NOW) == []


@given(
    st.lists(
        st.sampled_from(sorted(WEAKENS)), min_size=1, max_size=4, unique_by=lambda name: tuple(WEAKENS[name][0].split(".")[:2])
    )
)
def test_what_only_strengthens_weakens_when_it_is_taken_back(names: list[str]) -> None:
    weak = overlay.keyed(BASE)
    for name in names:
        path, value, _ = WEAKENS[name]
        parts = overlay.parse_path(path)
        weak = overlay.drop(weak, parts) if value is None else overlay.put(weak, parts, value)
    loose, strict = overlay.validate(weak, []), changed("requests_per_minute", 60)
    assert weakenings(loose, strict, now_unix=NOW) == []
    assert weakenings(strict, loose, now_unix=NOW) != []
