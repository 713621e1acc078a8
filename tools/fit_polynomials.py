"""Fit the polynomials of ``fastloss/primitives.py`` and print their coefficients.

Near-minimax fits in 60 digits, rounded to the type that uses them. Run ``python tools/fit_polynomials.py``; the
printed error is relative to the function's result, that of exp in units of its last place.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 60
# From the lower end of [-ln(2) / 2, ln(2) / 2] to the upper end of [-ln(4/3), ln(3/2)], for both kinds of reduction;
# a little slack: the rounding to n is not exact.
EXP_INTERVAL = [-mp.log(2) / 2 * mp.mpf("1.0005"), mp.log(1.5) * mp.mpf("1.0003")]
ATANH_MAX = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)  # s = f / (2 + f) for 1 + f in [sqrt(1/2), sqrt(2)]

LOG_COSH_INTERVAL = [mp.mpf("1e-9"), mp.mpf("0.641")]  # of r^2


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


def log_cosh_tail(z):
    """(log(cosh(r)) - z / 2) / z^2 as a function of z = r^2."""
    return (mp.log(mp.cosh(mp.sqrt(z))) - z / 2) / z**2 if z > mp.mpf("1e-12") else -mp.mpf(1) / 12 + z / 45


def log_cosh_weight(z):
    """What an error of log_cosh_tail does to log(cosh(r))."""
    return z**2 / mp.log(mp.cosh(mp.sqrt(z)))


def exp_weight(r):
    """What an error of exp_tail does to exp(r), whose last place has half the value below 1."""
    return r**2 * (2 if r < 0 else 1)


FITS = {
    "exp_tail, float32": (exp_tail, EXP_INTERVAL, 5, np.float32, exp_weight),
    "exp_tail, float64": (exp_tail, EXP_INTERVAL, 11, np.float64, exp_weight),
    "log1p_tail, float32": (log1p_tail, [0, 1], 10, np.float32, 1 / mp.log(2)),
    "log1p_tail, float64": (log1p_tail, [0, 1], 21, np.float64, 1 / mp.log(2)),
    "atanh_tail, float32": (atanh_tail, [0, (ATANH_MAX * mp.mpf("1.001")) ** 2], 4, np.float32, ATANH_MAX**2),
    "atanh_tail, float64": (atanh_tail, [0, (ATANH_MAX * mp.mpf("1.001")) ** 2], 7, np.float64, ATANH_MAX**2),
    "log_cosh_tail, float32": (log_cosh_tail, LOG_COSH_INTERVAL, 6, np.float32, log_cosh_weight),
    "log_cosh_tail, float64": (log_cosh_tail, LOG_COSH_INTERVAL, 12, np.float64, log_cosh_weight),
}


def lawson(powers, rest, weights):
    """Coefficients of the least maximal weighted error: least squares, errors weighted by themselves over and over."""
    shares = [mp.mpf(1)] * len(weights)
    for _ in range(40):
        scale = [w * mp.sqrt(s) for w, s in zip(weights, shares, strict=True)]
        scaled = mp.matrix([[scale[i] * powers[i, j] for j in range(powers.cols)] for i in range(powers.rows)])
        found = mp.lu_solve(scaled, mp.matrix([s * r for s, r in zip(scale, rest, strict=True)]))
        left = powers * found - rest
        shares = [s * abs(w * e) for s, w, e in zip(shares, weights, left, strict=True)]
        top = max(shares)
        shares = [s / top for s in shares]
    return found


def rounded_fit(function, interval, terms, dtype, weight):
    """Coefficients in ``dtype``: each is rounded in turn, lowest power first, and the rest fitted again around it.

    A weight that is a function makes the fit minimax under it; otherwise the fit is by Chebyshev nodes.
    """
    a, b = map(mp.mpf, interval)
    nodes = [(a + b) / 2 + (b - a) / 2 * mp.cos(mp.pi * (k + mp.mpf(1) / 2) / 96) for k in range(96)]
    weights = [weight(x) if callable(weight) else mp.mpf(weight) for x in nodes]
    fixed = []
    for power in range(terms):
        rest = mp.matrix([function(x) - mp.polyval(fixed[::-1], x) if fixed else function(x) for x in nodes])
        powers = mp.matrix([[x**k for k in range(power, terms)] for x in nodes])
        if callable(weight):
            coefficient = lawson(powers, rest, weights)[0]
        elif power:
            coefficient = mp.lu_solve(powers, rest)[0]
        else:
            coefficient = mp.chebyfit(function, interval, terms)[-1]
        fixed.append(mp.mpf(float(dtype(float(coefficient)))))
    error = max(w * abs(function(x) - mp.polyval(fixed[::-1], x)) for w, x in zip(weights, nodes, strict=True))
    return fixed, error


if __name__ == "__main__":
    for name, (function, interval, terms, dtype, weight) in FITS.items():
        coefficients, error = rounded_fit(function, interval, terms, dtype, weight)
        unit = float(error / mp.mpf(float(np.finfo(dtype).eps)))
        print(f"{name}: error {unit:.3f} ULP" if callable(weight) else f"{name}: 2^{float(mp.log(error, 2)):.1f}")
        for power, c in enumerate(coefficients):
            print(f"    {power:2d}  {float(c)!r}")
