"""CURVE keys as text and in files.

A key is 32 bytes, written as 40 characters of Z85 (ZeroMQ RFC 32). NAME.key holds a pair, for its
owner's eyes alone; NAME.pub the public key, for everyone. Both are TOML, made by `decent keygen`.
No message of an error here says what a file of secrets holds.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import os
import string
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from decent.errors import ConfigError

LENGTH = 40
Z85 = string.digits + string.ascii_letters + ".-:+=^!/*?&<>()[]{}@%$#"
SECRET = "# A secret key of decent, and the public one that belongs to it. Show it to nobody.\n"
PUBLIC = "# A public key of decent: `key` of a worker in a topology's file.\n"
A_KEY_FILE = "a file NAME.key, as `decent keygen` makes it"


@dataclass(frozen=True)
class Keys:
    """A pair of keys."""

    public: str
    secret: str = field(repr=False)


def is_key(text: str) -> bool:
    """Whether this can be a key: 40 characters of Z85, each five of them below 2³²."""
    return len(text) == LENGTH and set(text) <= set(Z85) and all(
        sum(Z85.index(c) * 85 ** (4 - k) for k, c in enumerate(text[at : at + 5])) < 2**32
        for at in range(0, LENGTH, 5)
    )  # fmt: skip


def write(keys: Keys, name: str) -> tuple[Path, Path]:
    """NAME.key and NAME.pub. Raises ConfigError if there is one already: no key is overwritten."""
    secret, public = Path(f"{name}.key"), Path(f"{name}.pub")
    for path in (secret, public):
        if path.exists():
            raise ConfigError(f"{path}: it exists", "a new name", "give another -o")
    _create(secret, 0o600, f'{SECRET}public = "{keys.public}"\nsecret = "{keys.secret}"\n')
    _create(public, 0o644, f'{PUBLIC}key = "{keys.public}"\n')
    return secret, public


def _create(path: Path, mode: int, text: str) -> None:
    """A new file, nobody else's from its first byte on."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", "a place for a new file", "give another -o"
        ) from None


def read(path: Path) -> Keys:
    """The pair in NAME.key. Raises ConfigError if it is none, or if others can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(4096)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", A_KEY_FILE, "check the path") from None
    if mode & 0o077:
        raise ConfigError(
            f"{path}: others may use it (mode {mode:o})",
            "a secret key that is its owner's alone (mode 600)",
            f"run chmod 600 {path}, and make a new pair if others have read it",
        )
    return _parsed(path, data)


def _parsed(path: Path, data: bytes) -> Keys:
    try:
        table = tomllib.loads(data.decode())
    except ValueError:
        table = {}
    if set(table) != {"public", "secret"} or not all(
        isinstance(key, str) and is_key(key) for key in table.values()
    ):
        raise ConfigError(
            f"{path}: not a pair of keys", A_KEY_FILE, "copy it again, or make a new pair"
        )
    return Keys(**table)


def find(place: Path, public: str) -> Path:
    """The file of the secret key that belongs to `public`: `place`, or one in that folder."""
    files = sorted(place.glob("*.key")) if place.is_dir() else [place]
    for path in files:
        if read(path).public == public:
            return path
    raise ConfigError(
        f"{place}: no secret key there belongs to the public key {public}",
        A_KEY_FILE,
        "copy NAME.key there, or correct the public key in the topology",
    )
