"""Images: the files under a root, and reading them by windows. `formats.open_source` opens one."""
