"""The space that flows live in: the data itself, or its principal components; one scale for all.

    z = Vᵀ(x − m) / s          x ≈ m + s·V z

m is the mean, V [D, Z] the leading eigenvectors of the covariance, and s one number, so that z has
unit mean square over the data: with one scale for each direction the flow's loss would weigh noise
like content, and with one for each expert their flows would live in different spaces. "none" keeps
x, divided by s. Statistics are taken in float64, chunk by chunk. Up to `EXACT` dimensions the
covariance is decomposed exactly; above, by randomised subspace iteration (Halko et al., arXiv
0909.4061). The largest entry of each eigenvector is positive, so signs are the same again.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decent.config import Strict
from decent.errors import ConfigError, ModelError, TaskError
from decent.experts import files
from decent.experts.sources import Data, wrap
from decent.schedule import stream

EXACT = 4096
OVERSAMPLING, ITERATIONS = 10, 6
Matrix = NDArray[np.float64]


class Facts(Strict, frozen=True):
    """config.json of a latent's folder."""

    kind: str
    data_shape: tuple[int, ...]
    shape: tuple[int, ...]
    explained: float
    digest: str = ""


class Latent(nn.Module):
    """Encoder and decoder; a module without parameters, so that it moves between devices."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        whole = facts.kind == "none"
        size = (0, 0) if whole else (math.prod(facts.data_shape), facts.shape[0])
        self.facts = facts
        self.register_buffer("mean", torch.zeros(size[0]))
        self.register_buffer("basis", torch.zeros(size))
        self.register_buffer("scale", torch.ones(()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one latent."""
        return self.facts.shape

    @property
    def kind(self) -> str:
        """ "none", or "pca:SIZE"."""
        return self.facts.kind

    @property
    def explained(self) -> float:
        """Share of the data's variance that the latent keeps."""
        return self.facts.explained

    def encode(self, x: Tensor) -> Tensor:
        """Latents [N, *Z] of x [N, *S]. Raises ModelError for samples of another shape."""
        _expect(x, self.facts.data_shape, "samples")
        if self.facts.kind == "none":
            return x / self.scale.to(x.dtype)
        return (x.flatten(1) - self.mean.to(x.dtype)) @ (self.basis / self.scale).to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Samples [N, *S] of z [N, *Z]. Raises ModelError for latents of another shape."""
        _expect(z, self.shape, "latents")
        if self.facts.kind == "none":
            return z * self.scale.to(z.dtype)
        flat = z @ (self.basis * self.scale).to(z.dtype).T + self.mean.to(z.dtype)
        return flat.reshape(-1, *self.facts.data_shape)

    def save(self, folder: Path) -> None:
        """config.json and the tensors."""
        digest = files.save_weights(folder, self)
        files.save_config(folder, msgspec.structs.replace(self.facts, digest=digest))


def load(folder: Path) -> Latent:
    """Raises ModelError if `folder` holds none, or a damaged one."""
    facts = files.load_config(folder, Facts)
    made = Latent(facts)
    files.load_weights(folder, made, facts.digest)
    return made


def latent(text: str, x: Data | Tensor) -> Latent:
    """The latent called `text`, fitted to x [n, *S].

    Raises ConfigError for an unknown name or more components than dimensions or samples, TaskError
    for data without any variance.
    """
    data, size = wrap(x), components(text)
    if size is None:
        return _made(Facts("none", data.shape, data.shape, 1.0), {}, _mean_square(data))
    most = min(math.prod(data.shape), len(data))
    if size > most:
        raise ConfigError(
            f"{text} of {len(data)} samples {list(data.shape)}", f"at most {most} components"
        )
    mean = _mean(data)
    values, vectors, total = _leading(data, mean, size)
    kept = float(values.sum())
    facts = Facts(text, data.shape, (size,), kept / total if total > 0 else 0.0)
    return _made(facts, {"mean": mean, "basis": vectors}, kept / size)


def components(text: str) -> int | None:
    """SIZE of "pca:SIZE"; None of "none". Raises ConfigError for anything else."""
    if text == "none":
        return None
    found = re.fullmatch(r"pca:([1-9]\d{0,5})", text)
    if not found:
        raise ConfigError(f"latent {text!r}", '"none", or "pca:SIZE" such as "pca:64"')
    return int(found[1])


def _made(facts: Facts, tensors: dict[str, Matrix], mean_square: float) -> Latent:
    if not mean_square > 0:
        raise TaskError("all samples are the same", "data that varies")
    made = Latent(facts)
    for name, value in tensors.items():
        getattr(made, name).copy_(torch.from_numpy(value))
    made.scale.fill_(math.sqrt(mean_square))
    return made


def _expect(x: Tensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(x.shape[1:]) != shape:
        raise ModelError(f"{what} of shape {list(x.shape)}", f"[N, {', '.join(map(str, shape))}]")


def _mean_square(data: Data) -> float:
    squares = sum(float(chunk.double().square().sum()) for chunk in data.chunks())
    return squares / (len(data) * math.prod(data.shape))


def _mean(data: Data) -> Matrix:
    total = sum(chunk.flatten(1).double().sum(0) for chunk in data.chunks())
    assert isinstance(total, Tensor)
    mean: Matrix = total.numpy() / len(data)
    return mean


def _leading(data: Data, mean: Matrix, size: int) -> tuple[Matrix, Matrix, float]:
    """Eigenvalues [Z], eigenvectors [D, Z], largest first, and the sum of all eigenvalues."""
    dimensions = len(mean)
    if dimensions <= EXACT:
        covariance, total = _covariance(data, mean)
        values, vectors = np.linalg.eigh(covariance)
    else:
        width = min(size + OVERSAMPLING, dimensions)
        guess = stream(0, "pca").standard_normal((dimensions, width))
        for _ in range(ITERATIONS):
            image, total = _covariance(data, mean, np.linalg.qr(guess)[0])
            guess = image
        basis = np.linalg.qr(guess)[0]
        image, total = _covariance(data, mean, basis)
        values, turned = np.linalg.eigh(basis.T @ image)
        vectors = basis @ turned
    values, vectors = values[::-1][:size].clip(min=0), vectors[:, ::-1][:, :size]
    largest = np.abs(vectors).argmax(0)
    signs = np.sign(vectors[largest, np.arange(size)])
    return values, np.ascontiguousarray(vectors * signs), total


def _covariance(data: Data, mean: Matrix, basis: Matrix | None = None) -> tuple[Matrix, float]:
    """The covariance C [D, D], or C·basis [D, w], and C's trace."""
    image, total = np.zeros((len(mean), len(mean) if basis is None else basis.shape[1])), 0.0
    for chunk in data.chunks():
        centred = chunk.flatten(1).double().numpy() - mean
        image += centred.T @ (centred if basis is None else centred @ basis)
        total += float(np.vdot(centred, centred))
    return image / len(data), total / len(data)
