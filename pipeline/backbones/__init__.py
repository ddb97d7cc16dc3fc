"""Frozen vision transformers, their weights, and the devices that they run on."""
