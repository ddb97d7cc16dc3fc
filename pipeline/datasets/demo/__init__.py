"""The demo corpus: composed photographs with pixel-exact labels."""
