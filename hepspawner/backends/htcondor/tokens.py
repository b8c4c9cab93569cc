"""Tokens of users: with one, a hub that is not root submits for its users."""

import asyncio
import re
import shutil
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
        async with self._minting:
            if self._directory is None:
                self._directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="hepspawner-tokens-"))
            mine = self._directory / self.checked(user)
            if time.monotonic() - self._minted.get(user, float("-inf")) > self._config.lifetime / 2:
                token = await self._mint(user)
                await asyncio.to_thread(_write, mine, token)
                self._minted[user] = time.monotonic()
        return {
            "_CONDOR_SEC_TOKEN_DIRECTORY": str(mine),
            "_CONDOR_SEC_CLIENT_AUTHENTICATION_METHODS": "IDTOKENS",
        }

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


def _write(directory: Path, token: str) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    new = directory / ".token"  # HTCondor reads no file whose name begins with a dot
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(token)
    new.rename(directory / "token")
