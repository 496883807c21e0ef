"""What a person is told who asked for something that cannot be."""

import pytest

from extrap.errors import UserError


def refusal(function, *arguments) -> str:
    """The one line."""
    with pytest.raises(UserError) as error:
        function(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message
