"""Fit the polynomials of ``fastloss/primitives.py`` and print their coefficients.

Near-minimax Chebyshev fits in 60 digits (``mpmath.chebyfit``), rounded to the type that uses them.
Run ``python tools/fit_polynomials.py``; the printed error is relative to the function's result.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 60
HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.001")  # a little slack: the rounding to n is not exact
ATANH_MAX = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)  # s = f / (2 + f) for 1 + f in [sqrt(1/2), sqrt(2)]


def exp_tail(r):
    """(exp(r) - 1 - r) / r^2."""
    return (mp.exp(r) - 1 - r) / r**2 if abs(r) > mp.mpf("1e-12") else mp.mpf(1) / 2 + r / 6


def log1p_tail(e):
    """(log1p(e) - e) / e^2."""
    return (mp.log1p(e) - e) / e**2 if abs(e) > mp.mpf("1e-12") else -mp.mpf(1) / 2 + e / 3


def atanh_tail(z):
    """2 (atanh(s) / s - 1) / s^2 as a function of z = s^2."""
    s = mp.sqrt(z)
    return 2 * (mp.atanh(s) / s - 1) / z if z > mp.mpf("1e-16") else mp.mpf(2) / 3 + 2 * z / 5


FITS = {
    "exp_tail, float32": (exp_tail, [-HALF_LN2, HALF_LN2], 5, np.float32, HALF_LN2**2),
    "exp_tail, float64": (exp_tail, [-HALF_LN2, HALF_LN2], 11, np.float64, HALF_LN2**2),
    "log1p_tail, float32": (log1p_tail, [0, 1], 10, np.float32, 1 / mp.log(2)),
    "log1p_tail, float64": (log1p_tail, [0, 1], 21, np.float64, 1 / mp.log(2)),
    "atanh_tail, float32": (atanh_tail, [0, (ATANH_MAX * mp.mpf("1.001")) ** 2], 4, np.float32, ATANH_MAX**2),
    "atanh_tail, float64": (atanh_tail, [0, (ATANH_MAX * mp.mpf("1.001")) ** 2], 7, np.float64, ATANH_MAX**2),
}


def rounded_fit(function, interval, terms, dtype):
    """Coefficients in ``dtype``: each is rounded in turn, lowest power first, and the rest fitted again around it."""
    a, b = map(mp.mpf, interval)
    nodes = [(a + b) / 2 + (b - a) / 2 * mp.cos(mp.pi * (k + mp.mpf(1) / 2) / 96) for k in range(96)]
    coefficients, _ = mp.chebyfit(function, interval, terms, error=True)
    fixed = []
    for power in range(terms):
        if power:
            rest = mp.matrix([function(x) - mp.polyval(fixed[::-1], x) for x in nodes])
            powers = mp.matrix([[x**k for k in range(power, terms)] for x in nodes])
            coefficient = mp.lu_solve(powers, rest)[0]
        else:
            coefficient = coefficients[-1]
        fixed.append(mp.mpf(float(dtype(float(coefficient)))))
    error = max(abs(function(x) - mp.polyval(fixed[::-1], x)) for x in nodes)
    return fixed, error


if __name__ == "__main__":
    for name, (function, interval, terms, dtype, weight) in FITS.items():
        coefficients, error = rounded_fit(function, interval, terms, dtype)
        print(f"{name}: relative error 2^{float(mp.log(error * weight, 2)):.1f}")
        for power, c in enumerate(coefficients):
            print(f"    {power:2d}  {float(c)!r}")
