"""The model and the one thread that it lives on: loaded in the background, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from chatterbox_service.errors import ModelFailed, NotLoaded
from chatterbox_service.model import SpeechModel

LOADING_RETRY = 5  # seconds: loading takes some ten, from a disk that has to be read anew a minute

_log = logging.getLogger(__name__)


class LoadedModel:
    """A model that is loading, ready, or failed."""

    def __init__(self, loader: Callable[[], SpeechModel]) -> None:
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._loader = loader
        self._model: SpeechModel | None = None
        self.failure: str | None = None  # in one line

    @property
    def status(self) -> str:
        return "failed" if self.failure else "healthy" if self._model else "loading"

    def start(self) -> None:
        self.executor.submit(self._load)

    def get(self) -> SpeechModel:
        """
        Raises:
            NotLoaded: not yet.
            ModelFailed: it could not be loaded, or its device failed since.
        """
        if self.failure:
            raise ModelFailed(f"the model can't be used: {self.failure}")
        if self._model is None:
            raise NotLoaded("the model is being loaded", retry_after=LOADING_RETRY)
        return self._model

    def fail(self, error: BaseException) -> None:
        """The model is of no use any more."""
        self.failure = " ".join(f"{error}".split()) or type(error).__name__
        if not isinstance(error, ModelFailed):
            self.failure = f"{type(error).__name__}: {self.failure}"

    def close(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        try:
            model = self._loader()
        except BaseException as error:  # also what ends a process: this thread would end unseen
            _log.exception("the model could not be loaded")
            self.fail(error)
        else:
            self._model = model
            _log.info("the model is loaded on %s", model.device)
