"""How fast it is: what is measured, against whom, and the report of it."""
