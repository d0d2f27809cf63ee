"""What `decent launch` stands on."""

from decent.launcher.local import launch

__all__ = ["launch"]
