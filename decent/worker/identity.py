"""What all workers of a run have in common, and what is said where two have not."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from decent.worker import messages as m

WORDS = {
    "workers": "workers in the run",
    "values": "parameters in the model",
    "chunk": "values in a chunk",
    "dtype": "number format",
    "digest": "layout of the model",
    "codec": "codec",
}
"""In the order in which they are compared."""


@dataclass(frozen=True)
class Identity:
    """As it stands in every greeting."""

    workers: int
    values: int
    chunk: int
    dtype: str
    digest: str
    codec: str

    def difference(self, me: int, hello: m.Hello) -> str | None:
        """What the sender of `hello` has otherwise than worker `me`, in words."""
        for name, mine in asdict(self).items():
            theirs = getattr(hello, name)
            if theirs != mine:
                return f"{WORDS[name]}: {theirs} at worker {hello.src}, {mine} at worker {me}"
        return None
