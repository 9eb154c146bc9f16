"""Types of the functions that write and load exported files."""

import json
from collections.abc import Callable
from typing import Any

from torch import Tensor

Metadata = dict[str, Any]  # plain values
Maker = Callable[[Metadata], bytes]
Scorer = Callable[[Tensor], Tensor]


def texts(metadata: Metadata) -> dict[str, str]:
    """Return metadata for formats whose values are texts: JSON, except for texts themselves."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
