"""The command line `stegoflow`."""
