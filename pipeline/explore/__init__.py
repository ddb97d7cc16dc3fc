"""The explorer: a local page where a person says what the groups of a run mean."""
