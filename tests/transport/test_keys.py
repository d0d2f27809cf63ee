"""Keys as text and in files: what is written reads back, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from decent import keys
from decent.errors import ConfigError
from decent.keys import Z85, Keys, is_key
from decent.transport.curve import keys_in, new_keys


def test_what_zeromq_makes_is_a_key() -> None:
    for _ in range(100):
        pair = new_keys()
        assert is_key(pair.public)
        assert is_key(pair.secret)


@given(st.text(Z85, min_size=40, max_size=40))
def test_a_key_is_what_zeromq_takes(text: str) -> None:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.CURVE_SERVERKEY, text.encode())
        taken = True
    except zmq.ZMQError:
        taken = False
    finally:
        socket.close(0)
    assert is_key(text) == taken


@given(st.text(max_size=60))
def test_hardly_anything_else_is(text: str) -> None:
    assert not is_key(text)


def test_a_pair_reads_back(tmp_path: Path) -> None:
    pair = new_keys()
    secret, public = keys.write(pair, str(tmp_path / "london"))
    assert (secret.name, public.name) == ("london.key", "london.pub")
    assert (secret.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
    assert secret.read_text().startswith("# A secret key of decent")
    assert public.read_text().startswith("# A public key of decent")
    assert pair.public in public.read_text()
    assert pair.secret not in public.read_text()
    assert keys.read(secret) == keys_in(secret) == pair
    assert keys.find(tmp_path, pair.public) == keys.find(secret, pair.public) == secret
    assert pair.secret not in repr(pair)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    name, pair = str(tmp_path / "london"), new_keys()
    for there in (".key", ".pub"):
        file = Path(name + there)
        file.write_text("precious")
        with pytest.raises(ConfigError, match=rf"london\{there}: it exists.*Give another -o"):
            keys.write(pair, name)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]
        file.unlink()


GOOD = new_keys()
TEXT = f'public = "{GOOD.public}"\nsecret = "{GOOD.secret}"\n'
BROKEN = {
    "empty": "",
    "cut off": TEXT[:-3],
    "one key only": TEXT.split("\n")[1],
    "too short": TEXT.replace('"\n', '\n"', 1),
    "a number": "public = 1\nsecret = 2\n",
    "more than that": TEXT + "owner = 'me'\n",
    "something else": "-----BEGIN PRIVATE KEY-----\n",
    "the public file": f'key = "{GOOD.public}"\n',
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_pair_is_refused(case: str, tmp_path: Path) -> None:
    file = tmp_path / "a.key"
    file.write_text(BROKEN[case])
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"a\.key: not a pair of keys: expected a file") as caught:
        keys.read(file)
    assert GOOD.secret[:8] not in str(caught.value)


def test_two_halves_of_two_pairs_are_refused(tmp_path: Path) -> None:
    file, _ = keys.write(Keys(GOOD.public, new_keys().secret), str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="its public key does not belong to its secret key"):
        keys_in(file)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_secret_that_others_can_read_is_none(mode: int, tmp_path: Path) -> None:
    file, _ = keys.write(GOOD, str(tmp_path / "a"))
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"others may use it \(mode {mode:o}\).*chmod 600"):
        keys.read(file)


def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    keys.write(GOOD, str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="no secret key there belongs to the public key"):
        keys.find(tmp_path, new_keys().public)
    with pytest.raises(ConfigError, match=r"no\.key: No such file.*Check the path"):
        keys.find(tmp_path / "no.key", GOOD.public)
