"""What a source of tokens offers."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from extrap.data.cloze import Corrupter


class HeldOut(NamedTuple):
    """Segments of held-out documents, the same for every scheme and seed."""

    tokens: np.ndarray  # (N, S) int64
    documents: list[str]  # (N,) the document that each segment is from
    segments: list[int]  # (N,) its number within the document

    def thinned(self, k: int) -> "HeldOut":
        """Segments 0, k, 2 k, ... alone."""
        return HeldOut(self.tokens[::k], self.documents[::k], self.segments[::k])


class Source(ABC):
    """Documents of tokens 0 .. vocab_size - 1. A token is one or more bytes of text, or one symbol."""

    name: str
    vocab_size: int
    token_bytes: np.ndarray  # (V,) int64: how many bytes each token is; a symbol counts as one

    @property
    @abstractmethod
    def corrupter(self) -> Corrupter:
        """What replaces tokens where it is asked which were."""

    @abstractmethod
    def batch(self, rng: np.random.Generator, batch_size: int, length: int) -> np.ndarray:
        """(batch_size, length) int64, each row from a single training document."""

    @abstractmethod
    def held_out(self, seg_len: int, n_segments: int) -> HeldOut:
        """The held-out segments, each from a single document, spread over as many documents as there are."""

    @abstractmethod
    def hold_back(self, length: int, n_segments: int) -> HeldOut | None:
        """Up to so many sequences of training text, which from now on are not trained on; None where there is too little."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What is recorded with every result: sizes and a digest of all that was read."""

    @abstractmethod
    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        """What of the data these sizes use, for the record; under `remarks` the lines to tell before training.

        Raises UserError, with the numbers, if training sequences or held-out segments of these sizes cannot be had.
        """

    @abstractmethod
    def unigram_nll(self, train_len: int) -> np.ndarray:
        """(V,) nats: -log of how often each token is in what can be trained on, counted once more than it is."""

    @abstractmethod
    def references(self, tokens: np.ndarray, context: np.ndarray, train_len: int) -> dict[str, np.ndarray]:
        """By their kinds (see REFERENCES) predictors known in closed form: (S,) nats, of tokens[t + 1] from the context[t]
        tokens up to t; tokens (S + 1,), context (S,)."""
