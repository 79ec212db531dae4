"""What a model in this process needs besides the plugin: the packages of the extra ``local``."""

from __future__ import annotations

from importlib.util import find_spec

from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.registry import ModelSpec

PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers", "safetensors"),
    *("huggingface_hub", "psutil"),
)
"""By the names that they are imported by."""

INSTALL = "pip install 'pytest-llmprobe[local]'"


def check_packages(spec: ModelSpec) -> None:
    """Find out without importing them whether the packages that a model needs are installed.

    Raises:
        ModelError: One is absent. Behind a server none is needed, unless a tokenizer is named.
    """
    if spec.protocol is not None and not spec.tokenizer:
        return
    if (absent := next((name for name in PACKAGES if find_spec(name) is None), None)) is None:
        return
    if spec.protocol is not None:
        raise ModelError(
            f"the tokenizer {spec.tokenizer!r} of {spec.name!r} needs {absent}: {INSTALL}, or name "
            "no tokenizer"
        )
    raise ModelError(
        f"{spec.name!r} runs in this process, which needs {absent}: {INSTALL}; a model behind a "
        "server needs none of it: --model=openai:NAME --llmprobe-base-url=URL"
    )


def remedy(error: ModuleNotFoundError) -> str | None:
    """What to do about an import that failed, if one of these packages was imported."""
    absent = (error.name or "").partition(".")[0]
    return f"this needs {absent}: {INSTALL}" if absent in PACKAGES else None
