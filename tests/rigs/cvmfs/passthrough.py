"""passthrough.py SOURCE MOUNT_POINT CONTROL: a real FUSE file system that shows SOURCE, and is as sick as the file
CONTROL says: empty or absent: well; ``hang``; ``slow SECONDS``; or the name of an error, such as ``EIO``. A second word
for hang and errors: only below this path. What hangs goes on as soon as CONTROL says otherwise.
"""

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

from mfusepy import FUSE, FuseOSError, Operations

_TICK = 0.02


class Passthrough(Operations):  # type: ignore[misc]  # mfusepy has no types
    use_ns = True

    def __init__(self, source: str, control: str):
        self.source, self.control = source, Path(control)

    def _fault(self) -> list[str]:
        try:
            return self.control.read_text().split()
        except OSError:
            return []

    def _there(self, path: str) -> str:
        """The real path, after all that is wrong just now."""
        while True:
            kind, *more = self._fault() or [""]
            if kind == "slow":
                time.sleep(float(more[0]))
            elif kind and (not more or path.startswith(more[0])):
                if kind != "hang":
                    raise FuseOSError(getattr(errno, kind))
                time.sleep(_TICK)
                continue
            return self.source + path

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        found = os.lstat(self._there(path))
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
        attributes = {name: getattr(found, name) for name in names}
        times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        return {**attributes, **times}

    def readdir(self, path: str, fh: Any) -> list[str]:
        return [".", "..", *os.listdir(self._there(path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._there(path))

    def open(self, path: str, flags: int) -> int:
        return os.open(self._there(path), os.O_RDONLY)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)


if __name__ == "__main__":
    source, mount_point, control = sys.argv[1:]
    FUSE(
        Passthrough(source, control),
        mount_point,
        foreground=True,
        ro=True,
        allow_other=os.getuid() == 0,
        default_permissions=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )
