"""Arrays in, arrays out: no store, no files."""
