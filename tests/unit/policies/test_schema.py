from __future__ import annotations

import json

import jsonschema
import pytest

from core.decision import DOMAINS, Domain
from policies.schema import FOLDER, schema
from tests.unit.policies import trees


@pytest.mark.parametrize("domain", DOMAINS)
def test_published_schema_is_the_generated_one(domain: Domain) -> None:
    assert (FOLDER / f"{domain}.json").read_text() == schema(domain), "run scripts/schemas"


def test_no_schema_is_left_over() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{domain}.json" for domain in DOMAINS}


@pytest.mark.parametrize(("domain", "document"), list(trees.INPUTS.items()))
def test_schema_takes_a_good_input_and_refuses_an_unknown_field(domain: str, document: dict[str, object]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads((FOLDER / f"{domain}.json").read_text()))
    validator.validate(document)
    assert not validator.is_valid({**document, "extra": 1})
