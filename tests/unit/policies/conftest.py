from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policies.engine import Engine, load_embedded
from tests.unit.policies import trees

Make = Callable[..., Engine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """An embedded engine over the small tree, with the changes of `trees.files` and extra folders."""
    made: list[Engine] = []

    def build(*, extra: tuple[Path, ...] = (), **changes: str | None) -> Engine:
        root = trees.write(tmp_path / f"tree{len(made)}", trees.files(**changes))
        made.append(load_embedded(root, extra))
        return made[-1]

    yield build
    for engine in made:
        engine.close()
