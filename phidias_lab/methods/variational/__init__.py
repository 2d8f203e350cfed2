"""Variational analysis of scattered observations on a grid with coasts (the mathematics of DIVAnd).

The analysis minimises a norm of the anomaly, which penalises roughness over a correlation length and never looks across
land, plus the squared misfit to the observations (Barth et al. 2014, doi:10.5194/gmd-7-225-2014).  Far from coasts the
norm means a Matern covariance: it is the precision operator of Whittle and of Lindgren, Rue and Lindstroem (2011,
doi:10.1111/j.1467-9868.2011.00777.x) on a finite-difference grid.  Arrays in, arrays out.
"""

from phidias_lab.methods.variational.analysis import Analysis, analyse, usable
from phidias_lab.methods.variational.bounded import analyse_within
from phidias_lab.methods.variational.geometry import EARTH_RADIUS, local_resolution, metrics_on_sphere
from phidias_lab.methods.variational.influence import Influences, influences
from phidias_lab.methods.variational.norm import kernel
from phidias_lab.methods.variational.system import background_deviation

__all__ = [
    "EARTH_RADIUS",
    "Analysis",
    "Influences",
    "analyse",
    "analyse_within",
    "background_deviation",
    "influences",
    "kernel",
    "local_resolution",
    "metrics_on_sphere",
    "usable",
]
