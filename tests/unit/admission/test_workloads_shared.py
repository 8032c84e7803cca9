"""Real manifests of the projects whose kinds we count, each against `workloads_expected.yaml`.

They lie outside the repository: in the folder that PORTCULLIS_WORKLOADS names, or in `../shared/data/workloads` beside it.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from admission.check import Document, read_manifests
from admission.prices import CLASS_DEVICES
from admission.workloads import charge_object
from core import yamlread
from core.errors import BadInput
from core.names import SHARES_PER_GPU, shares_of

ROOT = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("PORTCULLIS_WORKLOADS", ROOT.parent / "shared" / "data" / "workloads"))
EXPECTED: dict[str, list[Any]] = yaml.safe_load((Path(__file__).parent / "workloads_expected.yaml").read_text())
SHIPPED = {
    name: shares_of(share)
    for name, share in yamlread.load((ROOT / "policies/defaults/accelerators.yaml").read_text(), where="defaults")["accelerators"].items()
}  # fmt: skip
PRICED_HERE = {"gpu.example.com": SHARES_PER_GPU, "cpu.example.com": 0, "net.example.com": 0}
CLAIMS = ("ResourceClaim", "ResourceClaimTemplate", "DeviceClass")

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the real manifests are not here: {FOLDER} is no folder (set PORTCULLIS_WORKLOADS to it)"
)


def named(resource: str) -> str:
    return resource.removeprefix("class:") + CLASS_DEVICES if resource.startswith("class:") else resource


def charged(document: Document, claims: list[Any], table: dict[str, int]) -> dict[str, Any]:
    try:
        found = charge_object(document.value, table, claims)
    except BadInput as error:
        return {"denied": str(error)}
    return {"gpus": Fraction(found.gpu_shares, SHARES_PER_GPU), **found.resources}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_document_holds_what_a_reader_found(name: str) -> None:
    table = {**SHIPPED, **{each + CLASS_DEVICES: price for each, price in PRICED_HERE.items()}}
    documents = read_manifests([FOLDER / name])
    claims = [document.value for document in documents if document.value["kind"] in CLAIMS]
    assert len(documents) == len(EXPECTED[name])
    for document, expected in zip(documents, EXPECTED[name], strict=True):
        found = charged(document, claims, table)
        if isinstance(expected, dict) and "denied" in expected:
            assert expected["denied"] in found.get("denied", "charged"), document.index
        else:
            amounts = {} if expected == "none" else expected
            wanted = {"gpus": Fraction(0), **{named(key): value for key, value in amounts.items()}}
            assert found == {**wanted, "gpus": Fraction(wanted["gpus"])}, document.index


def test_no_file_was_left_out() -> None:
    files = {str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file()}
    assert files == EXPECTED.keys()
