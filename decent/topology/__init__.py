"""Who may talk to whom, and how often. Needs numpy only; networkx, scipy (large graphs) and cvxpy
(optimal rates) are imported by the functions that need them."""

from decent.topology.convert import from_networkx, to_networkx
from decent.topology.draw import describe, sketch
from decent.topology.edges import Edge
from decent.topology.families import families, family
from decent.topology.files import load, save
from decent.topology.graph import Link, Topology
from decent.topology.optimize import Optimum, exchanges_needed, optimize
from decent.topology.spectrum import chi_1, chi_2, effective_resistances, spectral_gap
from decent.topology.varying import (
    Varying,
    generated,
    metropolis,
    one_peer_exponential,
    random_matching,
    sequence,
    static,
)

__all__ = [
    "Edge",
    "Link",
    "Optimum",
    "Topology",
    "Varying",
    "chi_1",
    "chi_2",
    "describe",
    "effective_resistances",
    "exchanges_needed",
    "families",
    "family",
    "from_networkx",
    "generated",
    "load",
    "metropolis",
    "one_peer_exponential",
    "optimize",
    "random_matching",
    "save",
    "sequence",
    "sketch",
    "spectral_gap",
    "static",
    "to_networkx",
]
