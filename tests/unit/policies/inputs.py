"""Strategies: inputs of each domain made from its type in `core.inputs`, and ways to spoil one."""

from __future__ import annotations

import copy
import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, Le, MaxLen
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.decision import MANDATORY, Domain
from core.inputs import INPUTS, MAX_INTEGER

WORDS = [
    "llama", "7", "acme", "vision", "ref:1", "ref:a", "ref:b", "D7", "g1", "search", "service", "sealed", "ml", "r.example", "*",
    "warn", "off", "", "ž", "e\u0301", "é", "a\0b", "\U0001f999", "\ufffd", "\u200b", "x" * 4096, *MANDATORY["admission"],
    *MANDATORY["gateway"], *MANDATORY["weights"], *MANDATORY["lineage"],
]  # fmt: skip
"""Few, so that what must be equal somewhere is equal often enough."""
NUMBERS = [0, 1, 2, 20160, 1_800_000_000, MAX_INTEGER - 1, MAX_INTEGER]


@functools.cache
def valid(domain: Domain) -> st.SearchStrategy[dict[str, Any]]:
    """Inputs that the domain's type takes. Half of them ask for the mandatory rules, as doors do."""

    def asked(found: dict[str, Any], as_doors: bool) -> dict[str, Any]:
        return {**found, "mandatory": list(MANDATORY[domain])} if as_doors else found

    return st.builds(asked, _model(INPUTS[domain]), st.booleans())


def _model(kind: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    required = {name: _field(field) for name, field in kind.model_fields.items() if field.is_required()}
    optional = {name: _field(field) for name, field in kind.model_fields.items() if not field.is_required()}
    return st.fixed_dictionaries(required, optional=optional)


def _field(field: FieldInfo) -> st.SearchStrategy[Any]:
    return _type(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)


def _type(kind: Any) -> st.SearchStrategy[Any]:
    limits: list[Any] = []
    if typing.get_origin(kind) is Annotated:
        kind, *limits = typing.get_args(kind)
        limits = [limit for found in limits for limit in (found.metadata if isinstance(found, FieldInfo) else [found])]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in {Union, types.UnionType}:  # what is not known is left out, never null
        return _type(next(one for one in arguments if one is not type(None)))
    if origin is list:
        return st.lists(_type(arguments[0]), max_size=4)
    if origin is dict:
        return st.dictionaries(_type(arguments[0]), _type(arguments[1]), max_size=3)
    if kind is bool:
        return st.booleans()
    if kind is int:
        low = next(limit.ge for limit in limits if isinstance(limit, Ge))
        high = next(limit.le for limit in limits if isinstance(limit, Le))
        return st.one_of(st.sampled_from([n for n in NUMBERS if low <= n <= high] or [low]), st.integers(low, high))
    if kind is str:
        longest = next((limit.max_length for limit in limits if isinstance(limit, MaxLen)), 64)
        return st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=min(20, longest)))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _model(kind)
    raise TypeError(f"core.inputs has a type that no strategy knows: {kind}")


WRONG: Mapping[str, Any] = {
    "null": None,
    "a list of a list": [[True]],
    "an object nobody asked for": {"nobody": 1},
    "a fraction": 1.5,
    "an integer beyond exactness": MAX_INTEGER + 1,
    "below zero": -1,
    "not a number": float("nan"),
    "a text too long": "x" * 4097,
    "a lone surrogate": "\ud800",
}
"""None of them fits any place of any input."""


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside `document`."""
    items = (
        list(document.items())
        if isinstance(document, dict)
        else list(enumerate(document))
        if isinstance(document, list)
        else []
    )
    return [found for key, item in items for found in ((*at, key), *places(item, (*at, key)))]


def put(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with `value` at `path`."""
    changed = copy.deepcopy(document)
    here: Any = changed
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    return changed


def required(domain: Domain, document: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The paths in `document` without which it fits no more."""
    return _required(INPUTS[domain], document, ())


def _required(kind: Any, value: Any, at: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if typing.get_origin(kind) is Annotated:
        return _required(typing.get_args(kind)[0], value, at)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found = []
        for name, field in kind.model_fields.items():
            if name in value:
                found += [(*at, name)] if field.is_required() else []
                found += _required(field.annotation, value[name], (*at, name))
        return found
    if typing.get_origin(kind) is list:
        return [path for i, item in enumerate(value) for path in _required(typing.get_args(kind)[0], item, (*at, i))]
    if typing.get_origin(kind) in {Union, types.UnionType}:
        return [path for one in typing.get_args(kind) if one is not type(None) for path in _required(one, value, at)]
    return []
