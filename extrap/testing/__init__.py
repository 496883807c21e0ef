"""What every position scheme promises: the checks at the start of every run, and the page of `make check-scheme`."""

from extrap.testing.cost import costs
from extrap.testing.findings import Finding, findings
from extrap.testing.promises import check_scheme

__all__ = ["Finding", "check_scheme", "costs", "findings"]
