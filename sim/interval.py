"""The mean of a few runs and how far it can be trusted."""

import numpy as np

from p2pfl.report.record import Float

# Student's t at 0.975 for 1 to 30 degrees of freedom (Abramowitz and Stegun 1964, table 26.10).
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_Z = 1.959964


def t_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to three decimals: beyond the table by its expansion (ibid. 26.7.5)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


def mean_and_half_width(values: Float) -> tuple[Float, Float]:
    """Of the columns of [runs, k]: their means over the runs that have a number, and half of the 95 % t-interval of each,
    NaN where fewer than two runs have one."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    mean = np.where(count > 0, np.where(finite, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    squares = np.where(finite, (values - mean) ** 2, 0.0).sum(axis=0)
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    quantile = np.array([t_975(max(int(k) - 1, 1)) for k in count])
    return mean, np.where(count > 1, quantile * deviation / np.sqrt(np.maximum(count, 1)), np.nan)
