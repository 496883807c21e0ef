"""What is hidden, what is predicted, what is scored. Imports no torch."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from extrap.config.schema import ModelConfig
from extrap.data.base import Source
from extrap.data.cloze import places
from extrap.errors import UserError

MASK_SEED = 0  # of held-out text: the same positions are hidden for every scheme, seed and length


class Batch(NamedTuple):
    """Model input, what stands there in truth, and which positions are scored; each (B, T)."""

    inputs: np.ndarray  # int64
    targets: np.ndarray  # int64
    scored: np.ndarray  # bool, the same number in every row


class Mlm:
    """Masked language model of a bidirectional encoder: a fixed share of the tokens is hidden and predicted.

    nll = mean over masked t of -log p(x_t | x with all masked positions replaced by [MASK]).
    Exactly round(mask_rate * T) positions a row, at least one, always replaced by [MASK], in training too (BERT's
    80/10/10 would make training and scoring differ). The perplexity is not that of a sequence and never stands in one
    column with a causal one. Source: Devlin et al. 2019 (arXiv:1810.04805).
    """

    causal = False
    extra_tokens = 0
    span = slice(None)  # of the tokens of a sequence, those that the positions of its batch are scored on

    def __init__(self, mask_rate: float = 0.15) -> None:
        self.mask_rate = self.scored_share = checked(mask_rate)

    def n_inputs(self, vocab_size: int) -> int:
        return vocab_size + 1  # [MASK] is the last token

    def n_outputs(self, vocab_size: int) -> int:
        return vocab_size

    def batch(self, tokens: np.ndarray, source: Source, rng: np.random.Generator, mask_rate: float | None = None) -> Batch:
        """At another rate than that of scoring, if one is given."""
        scored = chosen(tokens.shape, mask_rate or self.mask_rate, rng)
        return Batch(np.where(scored, source.vocab_size, tokens), tokens, scored)

    training_batch = batch

    def references(self, tokens: np.ndarray, batch: Batch, source: Source, train_len: int) -> dict[str, np.ndarray]:
        return unigram(batch, source, train_len)


class Causal:
    """Next-token prediction: nll = mean over t of -log p(x_{t+1} | x_1 .. x_t)."""

    causal = True
    extra_tokens = 1  # T inputs need T + 1 tokens
    span = slice(1, None)
    scored_share = 1.0

    def n_inputs(self, vocab_size: int) -> int:
        return vocab_size

    def n_outputs(self, vocab_size: int) -> int:
        return vocab_size

    def batch(self, tokens: np.ndarray, source: Source, rng: np.random.Generator, mask_rate: float | None = None) -> Batch:
        return Batch(tokens[:, :-1], tokens[:, 1:], np.ones_like(tokens[:, 1:], dtype=bool))

    training_batch = batch

    def references(self, tokens: np.ndarray, batch: Batch, source: Source, train_len: int) -> dict[str, np.ndarray]:
        return unigram(batch, source, train_len + self.extra_tokens)


class Rtd:
    """Replaced-token detection of a bidirectional encoder: which tokens of a text are not those that stood there.

    nll = mean over all t of -log p(y_t | x'), y_t = 1 where x'_t is not x_t and 0 elsewhere. At round(mask_rate * T)
    positions a row, at least one, x'_t is drawn from q(b | x_{t-1}, x_{t+1}), the corrupter of the source (data/cloze.py),
    counted once in the training text: a draw of the true token counts as original. Elsewhere x' is x; [MASK] is never read.
    The neighbours are the true ones, of which a row has one more on either side than it reads. Training and scoring hide
    as much: train.mask_rate is not for it. The text is corrupted once, the same for every scheme, seed and length.

    Source: ELECTRA (Clark et al. 2020, arXiv:2003.10555), section 2, whose corrupter is trained beside the model: such
    generators break with length as the models do, and would give each scheme another task. Positions are chosen without
    replacement (their code: with); their head has a layer more and one output, ours two classes and a softmax.
    """

    causal = False
    extra_tokens = 2  # one on either side, which are read by the corrupter alone
    span = slice(1, -1)
    scored_share = 1.0

    def __init__(self, mask_rate: float = 0.15) -> None:
        self.mask_rate = checked(mask_rate)

    def n_inputs(self, vocab_size: int) -> int:
        return vocab_size

    def n_outputs(self, vocab_size: int) -> int:
        return 2  # original, replaced

    def batch(self, tokens: np.ndarray, source: Source, rng: np.random.Generator, mask_rate: float | None = None) -> Batch:
        left, true, right = tokens[:, :-2], tokens[:, 1:-1], tokens[:, 2:]
        drawn = chosen(true.shape, self.mask_rate, rng)
        inputs = true.copy()
        inputs[drawn] = places(source.corrupter, left[drawn], right[drawn], source.vocab_size).draw(rng)
        return Batch(inputs, (inputs != true).astype(np.int64), np.ones_like(drawn))

    training_batch = batch

    def references(self, tokens: np.ndarray, batch: Batch, source: Source, train_len: int) -> dict[str, np.ndarray]:
        """What is known of replaced tokens without a model, (N, T) nats each:

        rate        that so many are: the share in this very text, so that its mean over all of it is the entropy of that
        byte        how often each token is one in training text
        neighbours  mask_rate * (1 - q(x'_t | x'_{t-1}, x'_{t+1})), what two neighbours tell, in the long run
                    the best that can be made of them where these are true and q is how the source draws
        """
        read = tokens.copy()
        read[:, 1:-1] = batch.inputs
        own = places(source.corrupter, read[:, :-2].ravel(), read[:, 2:].ravel(), source.vocab_size)
        chances = {
            "rate": np.full(batch.targets.shape, batch.targets.mean()),
            "byte": source.corrupter.replaced(self.mask_rate)[batch.inputs],
            "neighbours": self.mask_rate * (1 - own.of(batch.inputs.ravel())).reshape(batch.inputs.shape),
        }
        return {kind: -np.log(np.where(batch.targets == 1, p, 1 - p)) for kind, p in chances.items()}


class Electra(Rtd):
    """Replaced-token detection whose replacements a generator makes that learns beside the discriminator.

    loss = gen_weight * L_mlm(generator) + disc_weight * L_rtd(discriminator), each the mean over its scored tokens: the
    hidden ones, and all. The generator is an encoder of `width` times the discriminator's width and hidden features, of as
    many layers and heads, and with the same scheme, whose slopes are then the same, too; share_tokens makes its table of
    tokens that of the discriminator, projected. A generator breaks with length as its discriminator does, and would
    then ask something else: the discriminator is scored on the text of Rtd, and the generator as a masked language
    model (rows of electra_generator).

    Source: ELECTRA (Clark et al. 2020, arXiv:2003.10555), section 2. Ours hides without replacement and always shows [MASK]
    (the released code 85 % of the time); the generator has an output table of its own, no shared table of positions, and as
    many heads (the paper fewer of the same size); heads have a layer less, and two classes a softmax; gradients of the two
    are clipped apart, for the larger loss would leave the other little.
    """

    def __init__(
        self,
        mask_rate: float = 0.15,
        width: float = 0.25,
        gen_weight: float = 1.0,
        disc_weight: float = 50.0,
        share_tokens: bool = True,
    ) -> None:
        super().__init__(mask_rate)
        for name, value in (("width", width), ("gen_weight", gen_weight), ("disc_weight", disc_weight)):
            if not 0 < value < float("inf"):
                raise UserError(f"objective.{name}: expected a positive number, found {value}")
        self.width, self.weights, self.share_tokens = width, (gen_weight, disc_weight), share_tokens
        self.of_generator = Mlm(mask_rate)

    def n_inputs(self, vocab_size: int) -> int:
        return vocab_size + 1  # with [MASK], which the generator reads from the same table

    def training_batch(
        self, tokens: np.ndarray, source: Source, rng: np.random.Generator, mask_rate: float | None = None
    ) -> Batch:
        """What the generator reads and predicts; the discriminator's text is made of that."""
        return self.of_generator.batch(tokens[:, 1:-1], source, rng)

    def generator(self, model: ModelConfig) -> ModelConfig:
        """The sizes of the generator of a discriminator of these. Raises UserError where they are none of an encoder."""
        d_model, d_ff = model.d_model * self.width, model.d_ff * self.width
        if any(size % 1 or size < 1 for size in (d_model, d_ff)) or d_model % model.n_heads:
            raise UserError(
                f"objective.width: {self.width:g} of model.d_model={model.d_model} and model.d_ff={model.d_ff} are "
                f"{d_model:g} and {d_ff:g}; expected whole numbers, the first a multiple of model.n_heads={model.n_heads}"
            )
        return replace(model, d_model=int(d_model), d_ff=int(d_ff))


def checked(mask_rate: float) -> float:
    if not 0 < mask_rate < 1:
        raise UserError(f"objective.mask_rate: expected a share between 0 and 1, found {mask_rate}")
    return mask_rate


def chosen(shape: tuple[int, ...], rate: float, rng: np.random.Generator) -> np.ndarray:
    """(B, T) bool: round(rate * T) positions a row, at least one."""
    found = np.zeros(shape, dtype=bool)
    order = rng.random(shape).argsort(axis=1, kind="stable")
    np.put_along_axis(found, order[:, : max(1, round(rate * shape[1]))], True, axis=1)
    return found


def unigram(batch: Batch, source: Source, train_len: int) -> dict[str, np.ndarray]:
    """The frequencies in the training text."""
    return {"unigram": source.unigram_nll(train_len)[batch.targets]}


Objective = Mlm | Causal | Rtd  # and Electra, which is one


def parts_of(objective: Objective) -> dict[str, Objective]:
    """What the networks of a model are scored by, in their order: under its own name, and of a generator beside it."""
    generator: dict[str, Objective] = {"generator": objective.of_generator} if isinstance(objective, Electra) else {}
    return {"": objective} | generator
