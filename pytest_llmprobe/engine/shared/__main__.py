"""``python -m pytest_llmprobe.engine.shared FOLDER PARENT``: load the model and serve it."""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

LOOK_S = 0.2
"""Between two looks at whether anybody is left who wants this process."""


def main(folder: Path, parent: int) -> None:
    """Serve until the last client has gone; a model that cannot be loaded is told on stderr."""
    joined = threading.Event()
    # First of all: what follows takes seconds to import.
    threading.Thread(target=_leave_with, args=(folder, parent, joined), daemon=True).start()
    from pytest_llmprobe.engine.engine import Engine
    from pytest_llmprobe.engine.shared.forks import Forks, batches_at_once
    from pytest_llmprobe.engine.shared.server import EngineServer, end
    from pytest_llmprobe.engine.shared.start import SOCKET, settings_in
    from pytest_llmprobe.errors import ModelError
    from pytest_llmprobe.models.loading import load_spec, load_tokenizer
    from pytest_llmprobe.models.prompts import PromptEncoder

    settings = settings_in(folder)
    # Once its libraries have started threads, no process can be forked.
    threads = 1 if batches_at_once(settings) > 1 else settings.threads
    try:
        loaded = load_spec(settings.spec, threads=threads)
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
    watch = partial(_leave_with, folder, joined=threading.Event())
    forks = Forks.of(loaded, backend, settings, folder, watch)
    EngineServer(backend, encode, joined, forks).serve(folder / SOCKET)
    end(folder)


def _leave_with(folder: Path, parent: int, joined: threading.Event) -> None:
    """End when the session's folder has gone, even while the model is being loaded.

    Until the first client comes, also with the process that has started this one: it may have been
    killed, and with it all who would come.
    """
    while folder.exists() and (joined.is_set() or os.getppid() == parent):
        time.sleep(LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
