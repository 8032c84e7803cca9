"""Every kind whose pods can be counted: one row each, by API group and kind. Its test: `tests/unit/admission/test_workloads.py`.

A new kind is a row in the module of its field and a line in that test's table. Where a project's API leaves a meaning open, the
row takes the larger reading and says so.
"""

from __future__ import annotations

from admission.kinds import argo, builtin, ray, serving, training
from admission.kinds.builtin import PASSIVE
from admission.rows import Rows

__all__ = ["PASSIVE", "WORKLOADS"]

WORKLOADS: Rows = {**builtin.ROWS, **training.ROWS, **ray.ROWS, **serving.ROWS, **argo.ROWS}
