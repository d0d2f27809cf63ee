"""Experts on other machines: served there, called from here.

with remote.connect(Path("hosts.toml"), K, pipeline.records) as experts:
    model = Ensemble(experts, pipeline.router, pipeline.pi)
"""

from decent.experts.remote.client import RemoteExpert
from decent.experts.remote.hosts import connect
from decent.experts.remote.migrate import sample_migrating

__all__ = ["RemoteExpert", "connect", "sample_migrating"]
