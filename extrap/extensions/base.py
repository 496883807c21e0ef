"""What an extension is, and the extensions that a config names."""

from collections.abc import Iterable
from typing import Any

from extrap.config.specs import build
from extrap.errors import UserError
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
        label: build(spec, f"extension.{label.partition('(')[0]}", "extrap.extensions") if spec else Extension()
        for label, spec in specs.items()
    }


def refuse_idle(grid: Iterable[tuple[dict[str, Extension], PositionScheme, int]]) -> None:
    """Raises UserError for an extension that applies to none of the schemes for which it is asked, at their longest inputs."""
    applies: dict[str, bool] = {}
    for extensions, scheme, longest in grid:
        for label, extension in extensions.items():
            applies[label] = applies.get(label, False) or extension(scheme, longest) is not None
    if idle := [label for label, somewhere in applies.items() if not somewhere]:
        raise UserError(
            f"eval.extensions: {idle[0]} applies to no scheme of this sweep, or changes none; leave it out, or add a scheme "
            "that it is for"
        )
