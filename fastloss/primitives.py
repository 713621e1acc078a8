"""The scalar functions that losses are made of, written once for both compiled backends.

Like ``formulas.py`` these are templates: ``_codegen.py`` writes them out for Cython and for Numba,
so both run the same operations in the same order and give the same bits. They are branch-free (a
conditional expression becomes a select), so the compilers vectorise any loop that calls them, and
NaN passes through every clamp.

The language is a subset of Python: assignments, arithmetic, comparisons, conditional expressions,
one ``return``. Float literals take the function's type, module constants are written in place, a
name annotated ``: int`` is an unsigned integer as wide as the float. Three functions come from the
backend: ``fma(a, b, c)`` is ``a * b + c`` with one rounding (two where the CPU lacks the
instruction), ``bits(x)`` and ``from_bits(k)`` reinterpret.

Coefficients come from ``tools/fit_polynomials.py``. ULP figures are maxima over all inputs for
float32 and over random inputs for float64 (``accuracy.json``), with fused multiply-add; budgets stand
in ``commands/_exhaustive.py``.
"""

# Cody-Waite: n * LN2_HI is exact for every n that occurs, LN2_LO holds the rest of ln 2.
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HI_F32 = 0.693359375
LN2_LO_F32 = -2.12194440e-4
LN2_HI_F64 = 6.93147180369123816490e-01
LN2_LO_F64 = 1.90821492927058770002e-10
# Adding 1.5 * 2^(precision - 1) rounds to an integer and leaves it in the low bits.
ROUND_F32 = 12582912.0
ROUND_F64 = 6755399441055744.0
# Adding and subtracting this leaves multiples of 2^-9 (float32) and 2^-19 (float64).
COARSE_F32 = 24576.0
COARSE_F64 = 12884901888.0
# Added to a / ln 2 before it is rounded, this takes r = a - n ln 2 to [-ln(4/3), ln(3/2)].
BIAS = 0.0849625007211562
# Below this exp() rounds to zero, even times sqrt(2).
EXP_MIN_F32 = -105.0
EXP_MIN_F64 = -746.0


def expm1_reduced_f32(r):
    """exp(r) - 1 for -ln(2) / 2 <= r <= ln(3/2), accurate relative to exp(r): a polynomial of degree 6."""
    z = r * r
    even = fma(fma(0.0014165263855829835, z, 0.04166410490870476), z, 0.5)
    odd = fma(0.008374261669814587, z, 0.16666465997695923)
    return fma(z, fma(odd, r, even), r)


def exp_reduced_f32(r, t):
    """exp(r) 2^n for |r| <= ln(2) / 2, n in the low bits of t."""
    # 2^n in two steps, 2^(n + 64) and 2^-64: it may be subnormal. The sum is rounded once, and NaN survives.
    k: int = (bits(t) << 23) + 0x5F800000
    scale = from_bits(k) * 5.421010862427522e-20
    return fma(expm1_reduced_f32(r), scale, scale)


def expm1_reduced_f64(r):
    """exp(r) - 1 for -ln(2) / 2 <= r <= ln(3/2), accurate relative to exp(r): a polynomial of degree 12."""
    z = r * r
    even = fma(2.1396650901666444e-09, z, 2.7555648263256395e-07)
    even = fma(fma(even, z, 2.480158927780481e-05), z, 0.0013888888887910833)
    even = fma(fma(even, z, 0.04166666666666832), z, 0.5)
    odd = fma(fma(2.5115985141739294e-08, z, 2.7557221122191387e-06), z, 0.00019841269913064468)
    odd = fma(fma(odd, z, 0.008333333333308891), z, 0.16666666666666696)
    return fma(z, fma(odd, r, even), r)


def expm1_tail_f64(r):
    """(exp(r) - 1 - r - r^2 / 2) / r^2 for |r| <= ln(2) / 2."""
    z = r * r
    even = fma(2.1396650901666444e-09, z, 2.7555648263256395e-07)
    even = fma(fma(fma(even, z, 2.480158927780481e-05), z, 0.0013888888887910833), z, 0.04166666666666832)
    odd = fma(fma(2.5115985141739294e-08, z, 2.7557221122191387e-06), z, 0.00019841269913064468)
    odd = fma(fma(odd, z, 0.008333333333308891), z, 0.16666666666666696)
    return fma(even, z, odd * r)


def exp_reduced_f64(r, t):
    """exp(r) 2^n for |r| <= ln(2) / 2, n in the low bits of t."""
    k: int = (bits(t) << 52) + 0x43F0000000000000
    scale = from_bits(k) * 5.421010862427522e-20
    return fma(expm1_reduced_f64(r), scale, scale)


def exp_neg_f32(a, limit):
    """exp(-a) for a >= 0, infinity included; limit is -EXP_MIN. Maximal error 0.96 ULP."""
    # From 3/4 to 3/2, not around 1: below 1 the roundings of r and exp(r) - 1 weigh double, so they are made smaller.
    a = limit if limit < a else a
    t = fma(a, LOG2E, BIAS) + ROUND_F32
    n = t - ROUND_F32
    r = fma(n, -LN2_LO_F32, fma(n, -LN2_HI_F32, a))
    k: int = 0x5F800000 - (bits(t) << 23)
    scale = from_bits(k) * 5.421010862427522e-20
    return fma(expm1_reduced_f32(-r), scale, scale)


def exp_neg_f64(a, limit):
    """exp(-a) for a >= 0, infinity included; limit is -EXP_MIN. Maximal error 0.90 ULP."""
    a = limit if limit < a else a
    t = fma(a, LOG2E, BIAS) + ROUND_F64
    n = t - ROUND_F64
    r = fma(n, -LN2_LO_F64, fma(n, -LN2_HI_F64, a))
    k: int = 0x43F0000000000000 - (bits(t) << 52)
    scale = from_bits(k) * 5.421010862427522e-20
    return fma(expm1_reduced_f64(-r), scale, scale)


def exp_pair_f32(d, lo):
    """exp(d + lo) for d <= 0 and a far smaller lo, what d has lost."""
    lo = lo if d > EXP_MIN_F32 else 0.0
    d = EXP_MIN_F32 if d < EXP_MIN_F32 else d
    t = fma(d, LOG2E, -BIAS) + ROUND_F32
    n = t - ROUND_F32
    r = fma(n, -LN2_LO_F32, fma(n, -LN2_HI_F32, d)) + lo
    return exp_reduced_f32(r, t)


def exp_diff_f32(x, m):
    """exp(x - m) for x <= m, m finite, without the rounding error of the subtraction."""
    d = x - m
    # Fast two-sum: for x <= m the larger of x and -m in magnitude is the smaller of the two.
    big = x if x < -m else -m
    small = -m if x < -m else x
    lo = small - (d - big)
    return exp_pair_f32(d, lo)


def exp_pair_f64(d, lo):
    """exp(d + lo) for d <= 0 and a far smaller lo, what d has lost."""
    lo = lo if d > EXP_MIN_F64 else 0.0
    d = EXP_MIN_F64 if d < EXP_MIN_F64 else d
    t = fma(d, LOG2E, -BIAS) + ROUND_F64
    n = t - ROUND_F64
    r = fma(n, -LN2_LO_F64, fma(n, -LN2_HI_F64, d)) + lo
    return exp_reduced_f64(r, t)


def exp_diff_f64(x, m):
    """exp(x - m) for x <= m, m finite, without the rounding error of the subtraction."""
    d = x - m
    big = x if x < -m else -m
    small = -m if x < -m else x
    lo = small - (d - big)
    return exp_pair_f64(d, lo)


def exp_near_f32(x, m):
    """exp(x - m) for x <= m, |m| < 8192: m's coarse part joins n ln 2 exactly, so x is rounded once, at the end."""
    low = m + EXP_MIN_F32
    x = low if x < low else x
    coarse = (m + COARSE_F32) - COARSE_F32
    t = fma(x - m, LOG2E, -BIAS) + ROUND_F32
    n = t - ROUND_F32
    r = fma(n, -LN2_LO_F32, (x - fma(n, LN2_HI_F32, coarse)) - (m - coarse))
    return exp_reduced_f32(r, t)


def exp_near_f64(x, m):
    """exp(x - m) for x <= m, |m| < 8192: m's coarse part joins n ln 2 exactly, so x is rounded once, at the end."""
    low = m + EXP_MIN_F64
    x = low if x < low else x
    coarse = (m + COARSE_F64) - COARSE_F64
    t = fma(x - m, LOG2E, -BIAS) + ROUND_F64
    n = t - ROUND_F64
    r = fma(n, -LN2_LO_F64, (x - fma(n, LN2_HI_F64, coarse)) - (m - coarse))
    return exp_reduced_f64(r, t)


def halvings_f32(m):
    """m / ln 2 as an even whole number, less 31."""
    half = fma(m, 0.5 * LOG2E, ROUND_F32) - ROUND_F32
    return half + half - 31.0


def exp_scaled_f32(x, m):
    """exp(x) 2^-k for x <= m, |m| < 256, k = halvings(m): shorter than exp(x - m). Normal, or 0 below -110."""
    # Rounding leaves the exponent of 2^(n - k) in the low bits. The lowest x has 0 there, which makes 0, in any
    # rounding mode. The shift is even, so ties go to even n as in other exponentials: the bound holds for those.
    shift = (ROUND_F32 + 127.0) - halvings_f32(m)
    low = fma(ROUND_F32 - shift, LN2, (BIAS + 0.25) * LN2)
    x = low if x < low else x
    t = fma(x, LOG2E, -BIAS) + shift
    n = t - shift
    r = fma(n, -LN2_LO_F32, fma(n, -LN2_HI_F32, x))
    k: int = bits(t) << 23
    scale = from_bits(k)
    return fma(expm1_reduced_f32(r), scale, scale)


def exp_top_f64(m, k):
    """exp(m) 2^-k for |m| < 256 and a whole number k near m / ln 2."""
    n = fma(m, LOG2E, ROUND_F64) - ROUND_F64
    r = fma(n, -LN2_LO_F64, fma(n, -LN2_HI_F64, m))
    p: int = (bits((n - k) + ROUND_F64) << 52) + 0x3FF0000000000000
    scale = from_bits(p)
    return fma(expm1_reduced_f64(r), scale, scale)


def log1p_unit_f32(e):
    """log(1 + e) for e in [0, 1]: one polynomial, no division. Maximal error 1.24 ULP."""
    # Powers in pairs: even and odd powers apart would cancel.
    z = e * e
    q = fma(0.0029282658360898495, e, -0.017770692706108093)
    q = fma(q, z, fma(0.0504484549164772, e, -0.09259596467018127))
    q = fma(q, z, fma(0.13108190894126892, e, -0.16393019258975983))
    q = fma(q, z, fma(0.19962714612483978, e, -0.24997445940971375))
    q = fma(q, z, fma(0.33333271741867065, e, -0.5))
    return fma(z, q, e)


def log1p_unit_f64(e):
    """log(1 + e) for e in [0, 1]: one polynomial, no division. Maximal error 1.39 ULP."""
    z = e * e
    q = fma(-2.3800308618576132e-05, z, fma(0.0002739927701516572, e, -0.0014975637743205516))
    q = fma(q, z, fma(0.005197715366008703, e, -0.012962120538398009))
    q = fma(q, z, fma(0.025013253640721808, e, -0.039482469062704716))
    q = fma(q, z, fma(0.053520809061179675, e, -0.06523232083603495))
    q = fma(q, z, fma(0.074545244741932, e, -0.08260012593061461))
    q = fma(q, z, fma(0.09073006741467184, e, -0.09996599778308828))
    q = fma(q, z, fma(0.11110620068858097, e, -0.12499947691424937))
    q = fma(q, z, fma(0.14285710343949545, e, -0.16666666468888716))
    q = fma(q, z, fma(0.19999999993985043, e, -0.2499999999990591))
    q = fma(q, z, fma(0.3333333333333281, e, -0.5))
    return fma(z, q, e)


def log1p_f64(s):
    """log(1 + s) for s >= 0, finite: argument reduction by 2^k, then atanh. Maximal error 0.83 ULP."""
    u = 1.0 + s
    # (u - 2^k sqrt(1/2)) in units of 2^52 counts the doublings: m = u / 2^k lies in [sqrt(1/2), sqrt(2)].
    k: int = (bits(u) - 0x3FE6A09E667F3BCD) >> 52
    m = from_bits(bits(u) - (k << 52))
    n = from_bits(k | 0x4330000000000000) - 4503599627370496.0
    # What rounding 1 + s lost, relative to u.
    c = (1.0 - (u - s) if s > 1.0 else s - (u - 1.0)) / u
    f = m - 1.0
    q = f / (2.0 + f)
    z = q * q
    w = fma(fma(0.14619224783863444, z, 0.15331500784108743), z, 0.18182895568708088)
    w = fma(fma(w, z, 0.22222211051564014), z, 0.28571428626417505)
    w = fma(fma(w, z, 0.39999999999898933), z, 0.666666666666667) * z
    half = 0.5 * f * f
    return n * LN2_HI_F64 - ((half - (q * (half + w) + (n * LN2_LO_F64 + c))) - f)


def log_sum_f32(u, c):
    """log(u) + c for u normal and c far smaller or 0: u = 2^n m with m in [sqrt(1/2), sqrt(2)], then atanh."""
    k: int = (bits(u) + 0x004AFB0D) >> 23
    m = from_bits(bits(u) + 0x3F800000 - (k << 23))
    n = from_bits(k | 0x4B000000) - 8388735.0
    f = m - 1.0
    q = f / (2.0 + f)
    z = q * q
    w = fma(0.22585824131965637, z, 0.2858930230140686)
    w = fma(fma(w, z, 0.3999955356121063), z, 0.6666666865348816) * z
    half = 0.5 * f * f
    return fma(n, LN2_HI_F32, f - (half - fma(q, half + w, fma(n, LN2_LO_F32, c))))


def log_sum_f64(u, c):
    """log(u) + c for u normal and c far smaller or 0: u = 2^n m with m in [sqrt(1/2), sqrt(2)], then atanh."""
    k: int = (bits(u) + 0x00095F619980C433) >> 52
    m = from_bits(bits(u) + 0x3FF0000000000000 - (k << 52))
    n = from_bits(k | 0x4330000000000000) - 4503599627371519.0
    f = m - 1.0
    q = f / (2.0 + f)
    z = q * q
    y = z * z
    # Powers in pairs: half the latency of one by one.
    w = fma(fma(0.14619224783863444, z, 0.15331500784108743), y, fma(0.18182895568708088, z, 0.22222211051564014))
    w = fma(w, y, fma(0.28571428626417505, z, 0.39999999999898933))
    w = fma(w, y, 0.666666666666667 * z)
    half = 0.5 * f * f
    return fma(n, LN2_HI_F64, f - (half - fma(q, half + w, fma(n, LN2_LO_F64, c))))


def log_f32(x):
    """log(x): subnormals, -inf for 0, NaN below. Maximal error 1.0 ULP."""
    # A subnormal is made normal by a power of two, which the sum gives back.
    tiny = x < 1.1754943508222875e-38
    u = x * 16777216.0 if tiny else x
    c = log_sum_f32(u, 0.0) - (16.635532333438686 if tiny else 0.0)
    c = c if x < from_bits(0x7F800000) else x
    return c if x > 0.0 else (from_bits(0xFF800000) if x == 0.0 else from_bits(0x7FC00000))


def log_f64(x):
    """log(x): subnormals, -inf for 0, NaN below. Maximal error 1.0 ULP."""
    tiny = x < 2.2250738585072014e-308
    u = x * 18014398509481984.0 if tiny else x
    c = log_sum_f64(u, 0.0) - (37.42994775023705 if tiny else 0.0)
    c = c if x < from_bits(0x7FF0000000000000) else x
    return c if x > 0.0 else (from_bits(0xFFF0000000000000) if x == 0.0 else from_bits(0x7FF8000000000000))


def power_f64(q, g):
    """q^g for q from 0 to 1 and g > 0, with g times half the error of a logarithm near 0."""
    tiny = q < 2.2250738585072014e-308
    u = q * 18014398509481984.0 if tiny else q
    k: int = (bits(u) + 0x00095F619980C433) >> 52
    m = from_bits(bits(u) + 0x3FF0000000000000 - (k << 52))
    n = (from_bits(k | 0x4330000000000000) - 4503599627371519.0) - (54.0 if tiny else 0.0)
    # The logarithm in two parts: of a small q it is large, and what it loses is one of the power's digits.
    high = n * LN2_HI_F64
    low = log_sum_f64(m, n * LN2_LO_F64)
    t = high + low
    low = low - (t - high)
    x = g * t
    r = exp_sum_f64(x, fma(g, low, fma(g, t, -x)))
    return r if q > 0.0 else q


def log1p_any_f32(s):
    """log(1 + s): -inf for -1, NaN below. Maximal error 1.0 ULP."""
    u = 1.0 + s
    # What rounding 1 + s lost, relative to u.
    c = (1.0 - (u - s) if s > 1.0 else s - (u - 1.0)) / u
    r = log_sum_f32(u, c)
    r = r if s < from_bits(0x7F800000) else s
    return r if s > -1.0 else (from_bits(0xFF800000) if s == -1.0 else from_bits(0x7FC00000))


def log1p_any_f64(s):
    """log(1 + s): -inf for -1, NaN below. Maximal error 1.0 ULP."""
    u = 1.0 + s
    c = (1.0 - (u - s) if s > 1.0 else s - (u - 1.0)) / u
    r = log_sum_f64(u, c)
    r = r if s < from_bits(0x7FF0000000000000) else s
    return r if s > -1.0 else (from_bits(0xFFF0000000000000) if s == -1.0 else from_bits(0x7FF8000000000000))


def log1p_sum_f32(s, lo):
    """log(1 + s + lo) for s > -1 and a far smaller lo, what s has lost."""
    u = 1.0 + s
    c = ((1.0 - (u - s) if s > 1.0 else s - (u - 1.0)) + lo) / u
    r = log_sum_f32(u, c if c == c else 0.0)
    r = r if s < from_bits(0x7F800000) else s
    return r if s > -1.0 else from_bits(0x7FC00000)


def log1p_sum_f64(s, lo):
    """log(1 + s + lo) for s > -1 and a far smaller lo, what s has lost."""
    u = 1.0 + s
    c = ((1.0 - (u - s) if s > 1.0 else s - (u - 1.0)) + lo) / u
    r = log_sum_f64(u, c if c == c else 0.0)
    r = r if s < from_bits(0x7FF0000000000000) else s
    return r if s > -1.0 else from_bits(0x7FF8000000000000)


def half_over_mean_f64(a, b, least):
    """1 / (a + b) for a, b >= 0, not both subnormal; least is the smallest normal number."""
    s = a + b
    return 1.0 / (least if s < least else s)


def log_over_mean_f64(a, share, d, least):
    """log(2 a / (a + b)) for a, b >= 0, share of both, d = (a - b) share; -708 for a = 0."""
    # A number for least is not known to compilers: with one they make two logarithms of it.
    u = (a + a) * share
    u = least if u < least else u
    # What u has lost where a and b are close and the logarithm is near 0.
    return log_sum_f64(u, (1.0 - u) + d)


def log_cosh_tail_f32(z):
    """(log(cosh(r)) - z / 2) / z^2 for z = r^2 up to 0.64."""
    t = fma(fma(0.00012323216651566327, z, -0.0006382811698131263), z, 0.0021466920152306557)
    return fma(fma(fma(t, z, -0.006737586576491594), z, 0.022221393883228302), z, -0.08333330601453781)


def log_cosh_tail_f64(z):
    """(log(cosh(r)) - z / 2) / z^2 for z = r^2 up to 0.64."""
    t = fma(fma(1.467395854443075e-07, z, -1.003352683100449e-06), z, 3.8265965242489926e-06)
    t = fma(fma(fma(t, z, -1.1593837663666544e-05), z, 3.262122560664461e-05), z, -9.094159811360759e-05)
    t = fma(fma(fma(t, z, 0.00025657050000202526), z, -0.0007386015425890376), z, 0.002186948725900663)
    return fma(fma(fma(t, z, -0.006746031739270413), z, 0.022222222222042343), z, -0.08333333333333166)


def exp_sum_f32(x, lo):
    """exp(x + lo) for any x and a far smaller lo, the rounding error of a product."""
    lo = lo if abs(x) < 1000.0 else 0.0
    x = 89.0 if x > 89.0 else x
    x = EXP_MIN_F32 if x < EXP_MIN_F32 else x
    t = fma(x, LOG2E, -BIAS) + ROUND_F32
    n = t - ROUND_F32
    r = fma(n, -LN2_LO_F32, fma(n, -LN2_HI_F32, x)) + lo
    # 2^n as the product of two halves: neither overflows, and a subnormal result is rounded once more at the end.
    k: int = bits(t) - 0x4B3FFF00
    h: int = (k >> 1) - 1
    scale = from_bits(h << 23)
    return fma(expm1_reduced_f32(r), scale, scale) * from_bits((k - h - 2) << 23)


def exp_sum_f64(x, lo):
    """exp(x + lo) for any x and a far smaller lo, the rounding error of a product."""
    lo = lo if abs(x) < 1000.0 else 0.0
    x = 710.0 if x > 710.0 else x
    x = EXP_MIN_F64 if x < EXP_MIN_F64 else x
    t = fma(x, LOG2E, -BIAS) + ROUND_F64
    n = t - ROUND_F64
    r = fma(n, -LN2_LO_F64, fma(n, -LN2_HI_F64, x)) + lo
    k: int = bits(t) - 0x4337FFFFFFFFF800
    h: int = (k >> 1) - 1
    scale = from_bits(h << 52)
    return fma(expm1_reduced_f64(r), scale, scale) * from_bits((k - h - 2) << 52)


def exp_times_f32(x, lo, y):
    """y exp(x + lo) for a far smaller lo, in range wherever the product is."""
    # y goes in between two powers of two, the first as large as it may be: y may be subnormal, and the result not.
    lo = lo if abs(x) < 2000.0 else 0.0
    x = 176.9 if x > 176.9 else x
    x = -174.6 if x < -174.6 else x
    t = fma(x, LOG2E, -BIAS) + ROUND_F32
    n = t - ROUND_F32
    r = fma(n, -LN2_LO_F32, fma(n, -LN2_HI_F32, x)) + lo
    h = 127.0 if n > 127.0 else n
    h = -125.0 if h < -125.0 else h
    a: int = (bits(h + ROUND_F32) << 23) + 0x3F800000
    b: int = (bits((n - h) + ROUND_F32) << 23) + 0x3F800000
    scale = from_bits(a)
    return fma(expm1_reduced_f32(r), scale, scale) * y * from_bits(b)


def exp_times_f64(x, lo, y):
    """y exp(x + lo) for a far smaller lo, in range wherever the product is."""
    lo = lo if abs(x) < 2000.0 else 0.0
    x = 1419.0 if x > 1419.0 else x
    x = -1416.7 if x < -1416.7 else x
    t = fma(x, LOG2E, -BIAS) + ROUND_F64
    n = t - ROUND_F64
    r = fma(n, -LN2_LO_F64, fma(n, -LN2_HI_F64, x)) + lo
    h = 1023.0 if n > 1023.0 else n
    h = -1021.0 if h < -1021.0 else h
    a: int = (bits(h + ROUND_F64) << 52) + 0x3FF0000000000000
    b: int = (bits((n - h) + ROUND_F64) << 52) + 0x3FF0000000000000
    scale = from_bits(a)
    return fma(expm1_reduced_f64(r), scale, scale) * y * from_bits(b)


def exp_f32(x):
    """exp(x) for any x. Maximal error 1.0 ULP."""
    return exp_sum_f32(x, 0.0)


def exp_f64(x):
    """exp(x) for any x. Maximal error 1.0 ULP."""
    return exp_sum_f64(x, 0.0)


def drop_neg_f32(a, limit):
    """1 - exp(-a) for a >= 0, infinity included; limit is -EXP_MIN. Shares its steps with exp_neg. Max. 1.5 ULP."""
    a = limit if limit < a else a
    t = fma(a, LOG2E, ROUND_F32)
    n = t - ROUND_F32
    r = fma(n, -LN2_LO_F32, fma(n, -LN2_HI_F32, a))
    k: int = 0x5F800000 - (bits(t) << 23)
    scale = from_bits(k) * 5.421010862427522e-20
    return fma(-expm1_reduced_f32(-r), scale, 1.0 - scale)


def drop_neg_f64(a, limit):
    """1 - exp(-a) for a >= 0, infinity included; limit is -EXP_MIN. Shares its steps with exp_neg. Max. 1.5 ULP."""
    a = limit if limit < a else a
    t = fma(a, LOG2E, ROUND_F64)
    n = t - ROUND_F64
    r = fma(n, -LN2_LO_F64, fma(n, -LN2_HI_F64, a))
    k: int = 0x43F0000000000000 - (bits(t) << 52)
    scale = from_bits(k) * 5.421010862427522e-20
    return fma(-expm1_reduced_f64(-r), scale, 1.0 - scale)
