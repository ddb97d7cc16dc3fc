"""The page of the report, drawn from plain data."""
