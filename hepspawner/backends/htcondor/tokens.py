"""Tokens of users: with one, a hub that is not root submits for its users."""

import asyncio
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from ..base import BackendError
from ..command import CommandError, Commands
from .config import Token

# Whoever is called like one of HTCondor's own would have its rights.
_OWN = {"root", "condor", "condor_pool", "anonymous", "unauthenticated"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MAY = ("-authz", "READ", "-authz", "WRITE")


class Tokens:
    """Mints a token for each user when it is needed, and keeps it for half of its life."""

    def __init__(self, commands: Commands, config: Token):
        self._commands, self._config = commands, config
        self._directory: Path | None = None
        self._minted: dict[str, float] = {}
        self._minting = asyncio.Lock()

    def checked(self, user: str) -> str:
        """The name of a user who may have a token. Raises BackendError."""
        if not _NAME.fullmatch(user) or user.lower() in _OWN:
            raise BackendError(f"{user!r} can have no jobs here: the name is none of an account")
        return user

    async def environment(self, user: str) -> dict[str, str]:
        """What a command finds a user's token by. Raises BackendError."""
        self.checked(user)
        async with self._minting:
            try:
                mine = await self._file(user)
            except OSError as error:
                raise BackendError(f"a token cannot be kept: {error.strerror} ({error.filename})") from None
        return {
            "_CONDOR_SEC_TOKEN_DIRECTORY": str(mine),
            "_CONDOR_SEC_CLIENT_AUTHENTICATION_METHODS": "IDTOKENS",
        }

    async def _file(self, user: str) -> Path:
        """The directory of a token that is good. Who tidies temporary files up may have removed it. Raises OSError."""
        if self._directory is None or not await asyncio.to_thread(_is_own, self._directory):
            self._directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="hepspawner-tokens-"))
        mine = self._directory / user
        fresh = time.monotonic() - self._minted.get(user, float("-inf")) <= self._config.lifetime / 2
        if not fresh or not await asyncio.to_thread((mine / "token").is_file):
            await asyncio.to_thread(_write, mine, await self._mint(user))
            self._minted[user] = time.monotonic()
        return mine

    def forget(self, user: str) -> None:
        """A token that was refused is not used again."""
        self._minted.pop(user, None)

    async def _mint(self, user: str) -> str:
        key = ["-key", self._config.key] if self._config.key else []
        identity = f"{user}@{self._config.domain}"
        life = str(self._config.lifetime)
        token = await self._commands.ask("condor_token_create", "-identity", identity, "-lifetime", life, *key, *_MAY)
        if token.count(".") != 2 or len(token.split()) != 1:
            raise CommandError("condor_token_create gave no token")
        return token

    def close(self) -> None:
        """Remove all tokens."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory, self._minted = None, {}


def _is_own(directory: Path) -> bool:
    """Whether a directory is there, and nobody else has put it there."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _write(directory: Path, token: str) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    new = directory / ".token"  # HTCondor reads no file whose name begins with a dot
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(token)
    new.rename(directory / "token")
