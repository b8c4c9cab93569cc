"""Repositories on CVMFS for tests: real FUSE file systems, below /cvmfs where the tests are root, that can be sick."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

SERVER = Path(__file__).parent / "rigs/cvmfs/passthrough.py"
_PATIENCE = 60


class Repository:
    """One repository: fill `source` (see `tests.rigs.cvmfs.trees`), and see it at `root`. Use it as a context."""

    def __init__(self, name: str = "unpacked"):
        self.directory = Path(tempfile.mkdtemp(prefix="cvmfs-"))
        self.directory.chmod(0o755)
        self.source, self.control = self.directory / "source", self.directory / "control"
        self.source.mkdir()
        self._made: list[Path] = []
        # no other test, nor a real repository of this machine, has this name
        full_name = f"{name}.{self.directory.name.removeprefix('cvmfs-').replace('_', '-')}.test"
        above = Path("/cvmfs") if os.getuid() == 0 else self.directory / "cvmfs"
        self.root = above / full_name
        self.root.mkdir(parents=True)
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Repository":
        command = [sys.executable, str(SERVER), str(self.source), str(self.root), str(self.control)]
        log = (self.directory / "log").open("wb")
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        log.close()
        end = time.monotonic() + _PATIENCE
        while not os.path.ismount(self.root):
            if self._server.poll() is not None or time.monotonic() > end:
                said = (self.directory / "log").read_text().strip().splitlines()
                self.close()
                raise RuntimeError(said[-1] if said else "the file system does not come up")
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def is_sick(self, how: str) -> None:
        """From now on: ``hang``, ``slow 0.1``, ``EIO``…, and for which paths; see passthrough.py. Empty: it is well."""
        new = self.control.with_suffix(".new")
        new.write_text(how)
        new.replace(self.control)

    def close(self) -> None:
        """Unmount it, whoever hangs in it, and remove it."""
        self.is_sick("")
        # lazily: whoever is in it keeps what he has
        undo = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-uz"]
        if self._server is not None and self._server.poll() is None:
            subprocess.run([*undo, str(self.root)], stderr=subprocess.DEVNULL, check=False)
            try:
                self._server.wait(5)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGKILL)  # what still hangs in it gets an error
                self._server.wait()
        self.root.rmdir()
        try:
            self.root.parent.rmdir()
        except OSError:
            pass  # others have repositories there, too
        shutil.rmtree(self.directory, ignore_errors=True)
