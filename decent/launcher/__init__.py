"""What `decent launch` stands on."""

from decent.launcher.local import launch
from decent.launcher.resume import resumable

__all__ = ["launch", "resumable"]
