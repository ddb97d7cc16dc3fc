"""Images: the files under a root, and decoding them."""
