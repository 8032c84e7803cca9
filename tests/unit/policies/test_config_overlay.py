from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import yamlread
from core.canonical import digest
from core.errors import BadInput, ConfigError, PortcullisError
from core.names import SHARES_PER_GPU
from policies.config import Document, unix
from policies.config_lookup import Lookup
from policies.config_overlay import (
    IDENTITY,
    Layer,
    differences,
    drop,
    get,
    identity,
    item_key,
    keyed,
    listed,
    merge,
    overlay,
    parse_path,
    plain,
    put,
    show_path,
    validate,
)
from policies.config_sources import DEFAULTS, read_file
from policies.store import ConfigStore
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder

names = st.from_regex(r"[a-z][a-z0-9.-]{0,5}", fullmatch=True)
labels = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
teams = st.fixed_dictionaries(
    {}, optional={"gpu_quota": st.sampled_from(["1", "2", "1/7"]), "namespaces": st.lists(labels, max_size=2)}
)
tenants = st.dictionaries(
    names, st.fixed_dictionaries({}, optional={"teams": st.dictionaries(names, teams, max_size=2)}), max_size=3
)
modes = st.lists(
    st.fixed_dictionaries(
        {"rule": st.sampled_from(["admission/a", "gateway/b"])},
        optional={"mode": st.sampled_from(["warn", "off"]), "tenant": names, "namespace": labels},
    ),
    max_size=3,
    unique_by=lambda item: item_key("modes", item),
)
grants = st.lists(
    st.fixed_dictionaries({"id": names}, optional={"model": names, "teams": st.lists(names, max_size=2)}),
    max_size=3,
    unique_by=lambda item: item["id"],
)
documents = st.fixed_dictionaries({}, optional={"tenants": tenants, "modes": modes, "grants": grants})


@given(documents, documents, documents)
def test_laying_over_is_associative_where_shapes_agree(a: Any, b: Any, c: Any) -> None:
    one, two, three = keyed(a), keyed(b), keyed(c)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(documents)
def test_laying_over_itself_or_nothing_changes_nothing(a: Any) -> None:
    one = keyed(a)
    assert merge(one, one) == merge({}, one) == merge(one, {}) == one


@given(documents, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_change_the_digest(a: Any, shuffle: Any) -> None:
    shuffled = {key: shuffle.sample(value, len(value)) if isinstance(value, list) else value for key, value in a.items()}
    assert digest(listed(keyed(a))) == digest(listed(keyed(shuffled)))


@given(documents, documents)
def test_differences_are_empty_exactly_for_equal_documents(a: Any, b: Any) -> None:
    one, two = keyed(a), keyed(b)
    assert (not list(differences(one, two))) == (one == two)


@given(documents, names, names)
def test_what_was_put_is_got_and_dropping_it_restores(a: Any, tenant: str, team: str) -> None:
    one = keyed(a)
    path = ("tenants", tenant, "teams", team + "x", "gpu_quota")
    there = put(one, path, "1")
    assert get(there, path) == "1"
    assert get(put(there, path, "2"), path) == "2"
    assert "gpu_quota" not in get(drop(there, path), path[:-1])


@given(st.lists(st.from_regex(r"[A-Za-z0-9_/-][A-Za-z0-9._/-]{0,10}", fullmatch=True), min_size=1, max_size=6))
def test_a_path_is_read_back_as_it_was_shown(parts: list[str]) -> None:
    assert parse_path(show_path(tuple(parts))) == tuple(parts)


@given(
    st.sampled_from(["admission/a", "gateway/b-c"]),
    st.none() | names,
    st.none() | names,
    st.none() | labels,
    st.none() | st.builds("{}@{}".format, names, names),
)
def test_a_modes_key_is_read_back(
    rule: str, tenant: str | None, team: str | None, namespace: str | None, model: str | None
) -> None:
    parts = {"rule": rule, "tenant": tenant, "team": team, "namespace": namespace, "model": model}
    item = {key: value for key, value in parts.items() if value is not None}
    key = item_key("modes", item)
    assert identity("modes", key) == item
    assert parse_path(show_path(("modes", key, "mode"))) == ("modes", key, "mode")


def test_a_resource_needs_no_quotes() -> None:
    assert parse_path("accelerators.nvidia.com/mig-1g.5gb") == ("accelerators", "nvidia.com/mig-1g.5gb")
    assert show_path(("accelerators", "nvidia.com/mig-1g.5gb")) == "accelerators.nvidia.com/mig-1g.5gb"


def test_an_item_of_which_only_its_identity_is_left_goes() -> None:
    document = put({}, ("exemptions", "EX-1", "ticket"), "T")
    assert document == {"exemptions": {"EX-1": {"id": "EX-1", "ticket": "T"}}}
    assert drop(document, ("exemptions", "EX-1", "ticket")) == {"exemptions": {}}


def test_nothing_stands_below_a_plain_value() -> None:
    with pytest.raises(BadInput, match="plain value"):
        put({"requests_per_minute": 5}, ("requests_per_minute", "fast"), 1)


def test_merging_changes_neither_side() -> None:
    lower, upper = keyed({"tenants": {"a": {"teams": {}}}}), keyed({"tenants": {"a": {"teams": {"t": {}}}}})
    merge(lower, upper)
    assert lower == {"tenants": {"a": {"teams": {}}}}


BAD_FILES: dict[str, tuple[str, str]] = {
    "a list": ("- 1", "mapping of sections"),
    "a key twice": ("tenants: {}\ntenants: {}", "twice"),
    "an id twice": ("grants: [{id: a}, {id: a}]", "twice"),
    "a mode twice": ("modes: [{rule: admission/a, mode: off}, {rule: admission/a, tenant: null, mode: warn}]", "twice"),
    "no id": ("grants: [{tenant: a}]", "'id'"),
    "no rule": ("modes: [{mode: warn}]", "'rule'"),
    "an id that is no text": ("grants: [{id: 7}]", "'id'"),
    "an item that is no map": ("exemptions: [EX-1]", "mapping"),
    "a section that is no list": ("modes: {}", "list"),
    "a key that is no text": ("tenants: {7: {}}", "quotes"),
    "a time without a zone": ("exemptions: [{id: a, expires: 2027-01-31T00:00:00}]", "zone"),
    "a date": ("exemptions: [{id: a, expires: 2027-01-31}]", "date"),
    "a fraction": ("tenants: {a: {teams: {t: {gpu_quota: 0.5}}}}", "quotes"),
    "two documents": ("tenants: {}\n---\ngrants: []", "one YAML document"),
    "a tag": ("tenants: !!python/object/apply:os.system [id]", "YAML"),
    "binary": ("tenants: !!binary aGVsbG8=", "bytes"),
    "a set": ("tenants: !!set {a}", "set"),
    "not YAML": ("tenants: [", "YAML"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Any, name: str) -> None:
    text, told = BAD_FILES[name]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_file(path, shipped=False)
    assert str(path) in caught.value.where
    assert told in str(caught.value)


def test_a_duplicate_key_is_refused_with_its_line(tmp_path: Any) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("tenants:\n  acme: {}\n  acme: {}\n")
    with pytest.raises(ConfigError, match=r"line 3"):
        read_file(path, shipped=False)


BAD_DOCUMENTS: dict[str, tuple[str, str]] = {
    "an unknown key in an item": (
        "tenants: {a: {}}\nexemptions: [{id: E, rule: admission/a, tenant: a, subjects: ['*'], forever: true}]",
        "exemptions.E.forever",
    ),
    "an unknown section": ("quota: {}", "quota"),
    "a bad tenant name": ("tenants: {'a b': {}}", "tenants.a b"),
    "a bad namespace": ("tenants: {a: {teams: {t: {namespaces: [Upper]}}}}", "tenants.a.teams.t.namespaces.0"),
    "a bad registry": ("tenants: {a: {images: [{registry: 'https://r.example'}]}}", "tenants.a.images.0.registry"),
    "a bad repository": ("tenants: {a: {images: [{registry: r, repository: /ml}]}}", "tenants.a.images.0.repository"),
    "a version that is a number": (
        "tenants: {a: {}}\ngrants: [{id: g, tenant: a, domain: gateway, model: m, version: 7, roles: [x]}]",
        "grants.g.version",
    ),
    "a resource without a domain": ("accelerators: {gpu: 1}", "accelerators.gpu"),
    "a share that is not whole": ("accelerators: {x.example/gpu: 1/11}", "accelerators.x.example/gpu"),
    "too many approvals": ("tenants: {a: {required_approvals: 101}}", "tenants.a.required_approvals"),
    "a truth as a number": ("tenants: {a: {required_approvals: true}}", "tenants.a.required_approvals"),
    "a truth as a quota": ("tenants: {a: {teams: {t: {gpu_quota: true}}}}", "tenants.a.teams.t.gpu_quota"),
    "an infinite quota": ("tenants: {a: {teams: {t: {gpu_quota: inf}}}}", "tenants.a.teams.t.gpu_quota"),
    "a quota beyond counting": ("tenants: {a: {teams: {t: {gpu_quota: '1e30'}}}}", "tenants.a.teams.t.gpu_quota"),
    "an obligation of nobody": ("obligations: [{tenant: a}]", "obligations.a"),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_bad_document_is_refused_with_file_and_key(name: str) -> None:
    text, place = BAD_DOCUMENTS[name]
    layers = [Layer("good.yaml", {}), Layer("bad.yaml", keyed(plain(yamlread.load(text))))]
    with pytest.raises(ConfigError) as caught:
        validate(overlay(layers), layers)
    assert caught.value.where == f"bad.yaml: {place}"


def test_the_layer_that_said_it_last_is_blamed() -> None:
    layers = [
        Layer("one.yaml", keyed({"tenants": {"a": {"required_approvals": 3, "images": []}}})),
        Layer("two.yaml", keyed({"tenants": {"a": {"required_approvals": 1}}})),
        Layer("three.yaml", keyed({"tenants": {"a": {"images": []}}})),
    ]
    with pytest.raises(ConfigError) as caught:
        validate(overlay(layers), layers)
    assert caught.value.where == "two.yaml: tenants.a.required_approvals"


def test_the_shipped_defaults_are_whole_shares_and_cover_the_mig_profiles() -> None:
    layers = [read_file(path, shipped=True) for path in sorted(DEFAULTS.glob("*.yaml"))]
    document = validate(overlay(layers), layers)
    table = Lookup(document, {}, MemoryCommitments()).accelerators
    for profile, sevenths in {
        "1g.5gb": 1,
        "2g.10gb": 2,
        "3g.20gb": 3,
        "4g.40gb": 4,
        "7g.80gb": 7,
        "1g.18gb.me": 1,
        "7g.141gb": 7,
    }.items():
        assert table[f"nvidia.com/mig-{profile}"] == sevenths * SHARES_PER_GPU // 7
    for whole in ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi", "google.com/tpu", "aws.amazon.com/neuroncore"):
        assert table[whole] == SHARES_PER_GPU
    assert document.tenants == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(max_size=12) | st.integers() | st.sampled_from([*Document.model_fields]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_no_document_makes_anything_but_our_errors(value: Any) -> None:
    try:
        layers = [Layer("any.yaml", keyed(plain(value)))]
        validate(overlay(layers), layers)
    except PortcullisError:
        pass


BAD_TIMES = [
    "",
    "2027-01-31",
    "2027-01-31T00:00:00",
    "2027-02-30T00:00:00Z",
    "2027-01-31T00:00:00.5Z",
    "2027-W04-7T00:00:00Z",
    "1960-01-01T00:00:00Z",
    "2027-01-31T00:00:00Z\n",
]


@pytest.mark.parametrize("text", BAD_TIMES)
def test_a_time_is_whole_and_has_a_zone(text: str) -> None:
    with pytest.raises(BadInput):
        unix(text)


def test_times_of_any_zone_are_one_moment() -> None:
    assert unix("2027-01-31T02:00:00+02:00") == unix("2027-01-31T00:00:00Z") == 1_801_353_600


def test_every_identity_list_is_a_section() -> None:
    assert set(IDENTITY) <= set(Document.model_fields)


def test_the_store_is_the_port(tmp_path: Any) -> None:
    from core.ports import OperatorConfig
    from storage.database import open_database

    port: OperatorConfig = ConfigStore(
        open_database(f"sqlite+aiosqlite:///{tmp_path}/x.db"),
        commitments=MemoryCommitments(),
        recorder=MemoryRecorder(),
        files=[],
        clock=FixedClock(),
    )
    assert port is not None
