"""The weights of GGUF files, each loaded once in a process and closed at its end."""

from __future__ import annotations

import atexit
import secrets
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from petal.errors import ModelError

_MAGIC = b"GGUF"
_QUIET = -1
"""llama.cpp's level of logging at which it leaves standard error alone."""


class Weights:
    """One loaded file, and the llama.cpp server in this process that runs it.

    Raises:
        ModelError: If the file cannot be read or is none that llama.cpp knows.
    """

    def __init__(self, path: Path, context_size: int, threads: int | None) -> None:
        self.path = path
        self._asking: dict[threading.Thread, threading.Event] = {}
        try:
            with path.open("rb") as file:
                magic = file.read(len(_MAGIC))
        except OSError as error:
            raise ModelError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        if magic != _MAGIC:
            raise ModelError(f"{str(path)!r} is no GGUF file; llama.cpp runs only these.")
        xllamacpp = import_module("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_size
        params.n_parallel = 1
        params.verbosity = _QUIET
        # The server also listens on a port of 127.0.0.1, where no other user of the machine may ask it.
        params.api_keys = [secrets.token_urlsafe(32)]
        if threads is not None:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError(
                f"{str(path)!r} cannot be loaded: it is cut off, too large for the memory, or of a kind that "
                f"xllamacpp {xllamacpp.__version__} does not know."
            ) from error

    def stream(self, body: dict[str, Any], unwanted: threading.Event) -> Iterator[dict[str, Any]]:
        """Answer a request of OpenAI's chat completions, chunk by chunk; once `unwanted` is set, the answer ends.

        Raises:
            ModelError: If llama.cpp refuses the request.
        """
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        parts: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()

        def take(part: dict[str, Any]) -> bool:
            parts.put(part)
            return unwanted.is_set()

        def ask() -> None:
            try:
                self._server.handle_chat_completions(request, take)
                parts.put(None)
            except Exception as error:
                parts.put(error)  # raised in the thread that waits
            finally:
                del self._asking[threading.current_thread()]

        thread = threading.Thread(target=ask, name=f"petal-{self.path.stem}", daemon=True)
        self._asking[thread] = unwanted
        thread.start()
        while (part := parts.get()) is not None:
            if isinstance(part, Exception):
                raise ModelError(f"{self.path.name} cannot answer: {part}") from part
            if "error" in part:
                raise ModelError(f"{self.path.name} cannot answer: {part['error'].get('message', part['error'])}")
            yield part

    def close(self) -> None:
        """End the answers that are still under way: a thread that is cut off inside of llama.cpp would crash."""
        for thread, unwanted in list(self._asking.items()):
            unwanted.set()
            thread.join()


_loaded: dict[tuple[Path, int, int | None], Weights] = {}
_loading = threading.Lock()


def loaded(path: Path, context_size: int, threads: int | None = None) -> Weights:
    """The weights of a file, loaded if this process has not yet done so for this size of context and threads.

    Raises:
        ModelError: If the file cannot be loaded.
    """
    key = (path, context_size, threads)
    with _loading:
        if key not in _loaded:
            if not _loaded:
                atexit.register(_close_all)
            _loaded[key] = Weights(path, context_size, threads)
        return _loaded[key]


def _close_all() -> None:
    for weights in _loaded.values():
        weights.close()
    _loaded.clear()
