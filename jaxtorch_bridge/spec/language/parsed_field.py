"""A field of a pydantic model that one plain function reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class ReadBy:
    """Annotates a field whose value ``read`` makes of whatever stands in the contract.

    pydantic's ``PlainValidator`` does the same, but also builds a schema of the annotated type,
    which makes importing slower for nothing.
    """

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The schema, which does not look at the annotated type."""
        return core_schema.no_info_plain_validator_function(self.read)
