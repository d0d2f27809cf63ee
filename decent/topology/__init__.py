"""Who may talk to whom, and how often. Needs numpy only; networkx is imported by the functions
that read or write its formats."""

from decent.topology.convert import from_networkx, to_networkx
from decent.topology.draw import describe, sketch
from decent.topology.families import families, family
from decent.topology.files import load, save
from decent.topology.graph import Edge, Link, Topology
from decent.topology.spectrum import chi_1, chi_2, effective_resistances, spectral_gap

__all__ = [
    "Edge",
    "Link",
    "Topology",
    "chi_1",
    "chi_2",
    "describe",
    "effective_resistances",
    "families",
    "family",
    "from_networkx",
    "load",
    "save",
    "sketch",
    "spectral_gap",
    "to_networkx",
]
