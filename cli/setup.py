"""`portcullis init`: files to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.session import session
from core.errors import Conflict

SETTINGS = """\
# Portcullis: what this installation is made of. Every value can be overridden by PORTCULLIS_SECTION__KEY.
profile: development            # production refuses insecure stand-ins
tenant: acme                    # the organisation that commands and the admin key act in
# operators: {root: ann}        # the registered person behind a login of this machine: what they propose, they cannot approve
config: [config/]               # the operator's configuration, below
# storage: {url: "postgresql+asyncpg://portcullis@localhost/portcullis"}   # SQLite in the state folder by default
# evidence: {origin: acme.example/log, durability: batched}                # or strict: fsync before every answer
gateway:
  upstreams: []
  #  - {name: vllm-a, url: "http://127.0.0.1:8000", models: [{served: llama-3, model: "llama-3@7"}]}
"""
CONFIG = """\
# The operator's configuration: who may run what where. `portcullis config set` lays changes over this file.
tenants:
  acme:
    required_approvals: 2
    images:
      - {registry: registry.acme.example, repository: ml}
    teams:
      vision: {namespaces: [vision], gpu_quota: 4, requests_per_minute: 60}
# grants:
#   - {id: vision-llama, tenant: acme, domain: gateway, model: llama-3, teams: [vision]}
# modes:   # the narrower wins: model, then namespace, team, tenant (docs/configuration.md)
#   - {rule: admission/approved-model, mode: warn, tenant: acme, namespace: sandbox}
"""


def init(context: typer.Context, folder: Annotated[Path, typer.Argument(help="Where to write them")] = Path()) -> None:
    """Writes a commented portcullis.yaml and a configuration folder to start from; overwrites nothing."""
    files = {folder / "portcullis.yaml": SETTINGS, folder / "config" / "acme.yaml": CONFIG}
    for path in files:
        if path.exists():
            raise Conflict("is there already; nothing was written", where=str(path))
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    written = [str(path) for path in files]
    session(context).result({"files": written}, "\n".join([*written, "next: portcullis config show"]))
