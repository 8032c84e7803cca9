"""The corpus on standard output: python -m tests.corpus > corpus.jsonl; portcullis policy bundle build --inputs corpus.jsonl"""

from __future__ import annotations

import sys

from tests.corpus import lines

for line in lines():
    sys.stdout.write(f"{line}\n")
