"""``python -m pytest_llmprobe.engine.shared FOLDER``: load the model and serve it."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

LOOK_S = 0.2
"""Between two looks at whether the session's folder is there."""


def main(folder: Path) -> None:
    """Serve until the last client has gone; a model that cannot be loaded is told on stderr."""
    # First of all: what follows takes seconds to import.
    threading.Thread(target=_leave_with, args=(folder,), daemon=True).start()
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.shared.server import EngineServer, end
    from pytest_llmprobe.engine.shared.start import SOCKET, settings_in
    from pytest_llmprobe.errors import ModelError
    from pytest_llmprobe.models.loading import load_spec, load_tokenizer
    from pytest_llmprobe.models.prompts import PromptEncoder

    settings = settings_in(folder)
    try:
        loaded = load_spec(settings.spec, threads=settings.threads)
        tokenizer = load_tokenizer(settings.spec)
    except ModelError as error:
        sys.exit(str(error))
    backend = Engine(loaded, batch_size=settings.batch_size, drafts=settings.drafts).backend
    encode = PromptEncoder(
        tokenizer,
        loaded.capabilities.chat_template,
        loaded.thinking.arguments,
        date=loaded.spec.date,
    ).ids
    EngineServer(backend, encode).serve(folder / SOCKET)
    end(folder)


def _leave_with(folder: Path) -> None:
    """End when the session's folder has gone, even while the model is being loaded."""
    while folder.exists():
        time.sleep(LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
