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


class Ahead(Ranges):
    """… of which a piece can be fetched in one read, before it is asked for bit by bit."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(read, size)
        self.fetch(0, 2**16)

    def fetch(self, offset: int, length: int) -> None:
        """Keep this piece, and no other."""
        self.start, self.data = offset, self.read_range(offset, length)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        at, length = self.at - self.start, len(buffer)
        if not 0 <= at <= len(self.data) - length:
            return super().readinto(buffer)
        buffer[:] = self.data[at : at + length]
        self.at += length
        return length
