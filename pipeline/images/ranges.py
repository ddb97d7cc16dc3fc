"""What is read by ranges as a file object."""

import io
from collections.abc import Callable


class Ranges(io.RawIOBase):
    """A seekable file of `size` bytes over a function that reads `length` bytes from `offset`. Nothing of the
    operating system stays open."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self.read_range, self.size, self.at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read_range(self.at, len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
