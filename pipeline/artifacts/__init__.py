"""Readers of what stages leave in a store. No stage is imported here."""
