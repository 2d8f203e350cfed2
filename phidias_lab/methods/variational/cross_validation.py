"""What the other observations say at the place of each observation: exact leave-one-out, for all of them at once.

With K = H B H' + R the covariance of the observations, leaving observation i out gives the residual and its variance

    y_i - y^(-i) = (K^-1 y)_i / (K^-1)_ii            variance = 1 / (K^-1)_ii

(Dubrule 1983, doi:10.1007/BF01033232; Rasmussen and Williams 2006, eq. 5.12), and by the formula of Woodbury
K^-1 = R^-1 - R^-1 H P H' R^-1, where P is the error covariance of the analysis.  The entries of P that its diagonal needs
couple corners of one cell, or of observations with correlated errors: the system has entries there, so the selected
inverse holds them.  With uncorrelated errors this is the r_i / (1 - A_ii) of DIVAnd, which samples A_ii.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phidias_lab.methods.variational.multifrontal import Selected
from phidias_lab.methods.variational.system import System


@dataclass(frozen=True)
class LeftOut:
    """Per observation in use: its value less what the others say there, and the variance of that difference.

    residual : in the units of the values.
    variance : relative to the background variance, like the noise, which is part of it.
    """

    residual: np.ndarray
    variance: np.ndarray

    @property
    def standardised(self) -> np.ndarray:
        """Residuals over their standard deviation, for a background variance of 1."""
        return self.residual / np.sqrt(self.variance)


def leave_one_out(system: System, field: np.ndarray, inverse: Selected) -> LeftOut:
    """Leave each observation out in turn, given the analysis at the sea nodes and the selected inverse of its matrix."""
    weighted = system.weight @ system.interpolation
    explained = (weighted @ inverse.matrix()).multiply(weighted).sum(axis=1)
    precision = system.weight.diagonal() - np.asarray(explained).ravel()
    misfit = system.weight @ (system.values - system.interpolation @ field)
    return LeftOut(misfit / precision, 1 / precision)
