"""Fields of settings classes by pydantic's places, whose parts are field names, indexes, and names or tags of union branches."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def fields_at(model: type[BaseModel] | None, loc: tuple[str | int, ...]) -> list[str]:
    """The field names of the model that `loc` leads to from `model`."""
    current = _model_at(model, loc)
    if current is None:
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def field_at(model: type[BaseModel] | None, loc: tuple[str | int, ...]) -> FieldInfo | None:
    """The declaration of the field that `loc` leads to: of an item or a branch within it, that of the whole field."""
    for end in range(len(loc), 0, -1):
        owner = _model_at(model, loc[: end - 1])
        if owner is not None:
            for name, field in owner.model_fields.items():
                if loc[end - 1] in (name, field.alias):
                    return field
    return None


def _model_at(model: type[BaseModel] | None, loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that a place of pydantic's leads to. Its parts are field names, indexes, and names or tags of union branches."""
    candidates: list[type[BaseModel]] = [model] if model is not None else []
    for part in loc:
        if isinstance(part, int):
            continue
        following = [
            found
            for candidate in candidates
            for name, field in candidate.model_fields.items()
            if part in (name, field.alias)
            for found in models_in(field.annotation)
        ]
        if following or any(part in _names_of(candidate) for candidate in candidates):
            candidates = following
            continue
        branch = [one for one in candidates if part in (one.__name__, *tags_of(one))]
        candidates = branch or candidates
    return candidates[0] if candidates else None


def _names_of(model: type[BaseModel]) -> set[str]:
    return {found for name, field in model.model_fields.items() for found in (name, field.alias) if found}


def tags_of(model: type[BaseModel], only: str | None = None) -> list[Any]:
    """The values of its fields that can have one only: what tells it from the other branches."""
    return [
        get_args(field.annotation)[0]
        for name, field in model.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1 and only in (None, name)
    ]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def mentions(annotation: Any, kind: type) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, kind)
    return any(mentions(part, kind) for part in get_args(annotation))
