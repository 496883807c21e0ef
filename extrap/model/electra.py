"""A discriminator and the generator of the text that it learns from."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extrap.config.schema import ModelConfig
from extrap.model.encoder import Encoder
from extrap.positions.base import PositionScheme


class Projected(nn.Module):
    """A table of tokens that is another model's, in fewer dimensions: (B, T) -> (B, T, D)."""

    def __init__(self, table: nn.Embedding, d_model: int) -> None:
        super().__init__()
        self.table, self.project = table, nn.Linear(table.embedding_dim, d_model, bias=False)
        nn.init.normal_(self.project.weight, std=table.embedding_dim**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.project(self.table(tokens))
        return found


class Pair(Encoder):
    """An encoder of two classes, original and replaced, with a smaller encoder that fills in hidden tokens.

    In training the generator reads text with [MASK] and is scored at the hidden places; one sample of each of its
    predictions there, without a gradient, makes the text that the discriminator reads and is scored on, everywhere. A sample
    that is the true token counts as original. Source: Clark et al. 2020 (arXiv:2003.10555), section 2 and equation 1.
    """

    def __init__(
        self,
        config: ModelConfig,
        scheme: PositionScheme,
        small: ModelConfig,
        small_scheme: PositionScheme,
        vocab_size: int,
        weights: tuple[float, float],
        share_tokens: bool,
    ) -> None:
        """`weights` are those of the losses of generator and discriminator; [MASK] is the token behind the last."""
        super().__init__(config, scheme, vocab_size + 1, 2)
        self.weights = weights
        self.generator = Encoder(small, small_scheme, vocab_size + 1, vocab_size)
        if share_tokens:
            self.generator.embedding = Projected(self.embedding, small.d_model)  # type: ignore[assignment]

    def networks(self) -> Iterator[Encoder]:
        yield self
        yield self.generator

    def clipped_apart(self) -> set[nn.Parameter]:
        """Those of the generator alone: a table that both read is the discriminator's."""
        return {*self.generator.parameters()} - {self.embedding.weight}

    def guessing(self) -> float:
        of_generator, of_discriminator = self.weights
        return of_generator * self.generator.guessing() + of_discriminator * super().guessing()

    def loss(self, inputs: Tensor, index: Tensor, targets: Tensor) -> Tensor:
        """In training of text with hidden tokens, of both networks; else of the discriminator, of text as it is."""
        if not self.training:
            return super().loss(inputs, index, targets)
        logits = self.generator.logits_at(inputs, index)
        drawn = sample(logits.detach())
        read = inputs.flatten().index_copy(0, index, drawn).view_as(inputs)
        replaced = torch.zeros_like(inputs).flatten().index_copy(0, index, (drawn != targets).to(inputs.dtype))
        found = self.logits(self(read).flatten(0, 1)).to(torch.float32)
        of_generator, of_discriminator = self.weights
        return of_generator * F.cross_entropy(logits, targets) + of_discriminator * F.cross_entropy(found, replaced)


def sample(logits: Tensor) -> Tensor:
    """(N, V) -> (N,): a token of each distribution, by exponential waits; in float32, or low tokens would win ties."""
    waits = torch.empty_like(logits, dtype=torch.float32).exponential_()
    return (logits.to(torch.float32).softmax(dim=-1) / waits).argmax(dim=-1)
