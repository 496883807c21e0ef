"""What an extension is, and the extensions that a config names."""

from typing import Any

from extrap.config.specs import build
from extrap.positions.base import PositionScheme


class Extension:
    """What is done to finished weights for inputs longer than they were trained on. This one does nothing: `none`."""

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        """The scheme for eval_len tokens, or None where the extension does not apply to it or would change nothing.

        Asked only for an eval_len above the training length: up to there every extension is the identity.
        """
        return scheme


def extensions_of(specs: dict[str, dict[str, Any]]) -> dict[str, Extension]:
    """By label. Raises UserError for arguments that they refuse."""
    return {
        label: build(spec, f"extension.{label.partition('(')[0]}", "extrap.extensions", Extension) if spec else Extension()
        for label, spec in specs.items()
    }


def is_plain(scheme: PositionScheme) -> bool:
    """Whether the scheme of a layer is one pass of a rotation and a score_mod."""
    branch, *others = scheme.branches(scheme.positions(2))
    return not (others or branch.mask_mod or branch.reads_content)
