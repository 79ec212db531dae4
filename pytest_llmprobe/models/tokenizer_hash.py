"""What tells a tokenizer from every other one."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def tokenizer_hash(tokenizer: Any) -> str:
    """16 hex digits of a SHA-256 of what decides a transformers tokenizer's ids.

    Not of its padding and truncation, which a mere call changes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        decides: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        decides = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
