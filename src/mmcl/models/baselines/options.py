"""Checks that the options of several baselines share."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

__all__ = ["heads_must_divide"]


def heads_must_divide(field: str = "width") -> Any:
    """A validator for a class of options: attention heads share ``field`` equally.

    Args:
        field: The width they share; it must stand above ``heads`` in the class.
    """

    def check(heads: int, info: ValidationInfo) -> int:
        width = info.data.get(field)
        if width is not None and width % heads:
            raise PydanticCustomError(
                "heads", "must divide {field} {width}", {"field": field, "width": width}
            )
        return heads

    return field_validator("heads")(check)
