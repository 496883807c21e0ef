"""What an extension is, the extensions that a config names, and how one reaches a scheme within another."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import nn

from extrap.config.specs import build
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.local import Local
from extrap.positions.randomized import Drawn

S = TypeVar("S", bound=PositionScheme)


class Extension:
    """What is done to finished weights for inputs longer than they were trained on. This one does nothing: `none`."""

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        """The scheme for eval_len tokens, or None where the extension does not apply to it or would change nothing.

        Up to the training length every extension is the identity, and only asked whether it applies: as it does beyond.
        """
        return scheme


@dataclass(frozen=True)
class Then(Extension):
    """Two extensions, the second of what the first makes of a scheme: `ntk+logn`. None where either does not apply."""

    first: Extension
    second: Extension

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        extended = self.first(scheme, eval_len)
        return None if extended is None else self.second(extended, eval_len)


def extensions_of(specs: dict[str, dict[str, Any]]) -> dict[str, Extension]:
    """By label. Raises UserError for arguments that they refuse."""
    return {
        label: build(spec, f"extension.{label.partition('(')[0]}", "extrap.extensions", Extension) if spec else Extension()
        for label, spec in specs.items()
    }


def ends(scheme: PositionScheme, eval_len: int) -> bool:
    """Whether the scheme is not defined for so many tokens, or ends with training."""
    return scheme.max_len is not None and scheme.max_len < max(eval_len, scheme.geometry.train_len + 1)


def is_drawn(scheme: PositionScheme) -> bool:
    """Whether its positions are drawn, while training from farther than L. What divides by k = n / L, or keeps to L, would
    squeeze them below where they were trained to be."""
    return scheme.of_length or any(isinstance(part, Drawn) for part in scheme.modules())


def passes_of(scheme: PositionScheme) -> tuple[Branch, ...]:
    """The attention passes of the scheme of a layer, over two tokens."""
    return scheme.branches(scheme.positions(2, device_of(scheme)))


def device_of(scheme: PositionScheme) -> torch.device | None:
    """None where the scheme has no tensors."""
    return next((tensor.device for tensor in chain(scheme.parameters(), scheme.buffers())), None)


def is_plain(passes: Sequence[Branch]) -> bool:
    """Whether a layer attends in one pass of a rotation and a score_mod."""
    branch, *others = passes
    return not (others or branch.mask_mod or branch.reads_content)


def is_wide(passes: Sequence[Branch], window: int) -> bool:
    """Whether these passes let a token see beyond a window: that of training, which most layers of mixed models keep to."""
    return any(branch.window is None or branch.window > window for branch in passes)


def is_wide_anywhere(scheme: PositionScheme, window: int) -> bool:
    """Whether those of some layer do."""
    return any(is_wide(passes_of(layer), window) for layer in dict.fromkeys(scheme.layers(scheme.geometry.n_layers)))


def rebuilt(scheme: PositionScheme, kind: type[S], change: Callable[[S], PositionScheme]) -> PositionScheme:
    """The scheme in which every scheme of this kind, wherever it stands, is what `change` makes of it.

    Parameters are shared with the scheme that is given, which stays as it was, and comes back where nothing changes.
    Schemes of distances stay within a window no wider than the training length: there they see nothing new.
    """

    def inside(module: nn.Module) -> nn.Module:
        if isinstance(module, Local) and kind.relative and module.window <= module.geometry.train_len:
            return module
        if isinstance(module, kind):
            return change(module)
        modules = {name: child and inside(child) for name, child in module._modules.items()}
        if all(modules[name] is child for name, child in module._modules.items()):
            return module
        other = copy(module)
        other._modules = modules
        return other

    return cast(PositionScheme, inside(scheme))
