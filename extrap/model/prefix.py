"""A causal model that reads on behind a text which it has read before."""

import torch
from torch import Tensor

from extrap.model.attention import AttendAt, prepare
from extrap.model.encoder import Block, Encoder, Given


class Prefix:
    """What attention is given in the blocks of a causal encoder for tokens (B, T), in evaluation, without gradients.

    Nothing of it depends on later tokens, so that it serves all texts of this length that begin alike.
    """

    @torch.no_grad()
    def __init__(self, encoder: Encoder, tokens: Tensor) -> None:
        assert encoder.causal
        assert not encoder.training
        schemes = encoder.scheme.layers(len(encoder.blocks))
        self.encoder, self.tokens = encoder, tokens
        self.pos = encoder.scheme.positions(tokens.shape[1], tokens.device)
        attends = {scheme: prepare(scheme, self.pos, training=False) for scheme in dict.fromkeys(schemes)}
        self.layers: list[tuple[Block, AttendAt, Given]] = []
        x = encoder.scheme.embed(encoder.embedding(tokens), self.pos)
        for block, scheme in zip(encoder.blocks, schemes, strict=True):
            assert isinstance(block, Block)
            self.layers.append((block, attends[scheme], block.read(x)))
            if block is not encoder.blocks[-1]:  # what it writes nobody reads
                x = block.write(x, attends[scheme](*self.layers[-1][-1]))

    @torch.no_grad()
    def last(self, tail: Tensor) -> Tensor:
        """(B, D): the hidden state of the last token where these, (B, R), stand in the place of the last R tokens."""
        end, scheme = len(self.pos), self.encoder.scheme
        start = end - tail.shape[1]
        tokens = torch.cat([self.tokens[:, :start], tail], dim=1)
        x = scheme.embed(self.encoder.embedding(tokens), self.pos)[:, start:]
        for block, attend, known in self.layers:
            pairs = zip(known, block.read(x), strict=True)
            q, k, v, read = (torch.cat([old[..., :start, :], own], dim=-2) for old, own in pairs)
            rows = range(end - 1 if block is self.encoder.blocks[-1] else start, end)
            x = block.write(x[:, -len(rows) :], attend(q, k, v, read, at=rows))
        hidden: Tensor = self.encoder.norm(x[:, 0])
        return hidden
