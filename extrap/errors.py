"""Errors for people."""


class UserError(Exception):
    """Something the user can mend: one line that says what was found, what was expected and what to do."""
