"""Speed is measured on request: by `-m speed`, or where this folder is named."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path, config):
    if re.search(r"\bspeed\b", config.option.markexpr or ""):
        return None
    start = config.invocation_params.dir
    named = ((start / arg.partition("::")[0]).resolve() for arg in config.args)
    return None if any(path.is_relative_to(HERE) for path in named) else True
