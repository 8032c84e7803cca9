"""The published JSON schemas of each domain's input, generated from `core.inputs` (`scripts/schemas` writes them)."""

from __future__ import annotations

import json
from pathlib import Path

from core.decision import DOMAINS, Domain
from core.inputs import INPUTS

FOLDER = Path(__file__).resolve().parent / "schemas"


def schema(domain: Domain) -> str:
    """The text of `policies/schemas/DOMAIN.json`."""
    document = INPUTS[domain].model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = f"input of data.portcullis.{domain}.decision"
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def write_schemas() -> list[Path]:
    """Writes every schema; gives the files."""
    FOLDER.mkdir(exist_ok=True)
    files = []
    for domain in DOMAINS:
        file = FOLDER / f"{domain}.json"
        file.write_text(schema(domain), encoding="utf-8")
        files.append(file)
    return files
