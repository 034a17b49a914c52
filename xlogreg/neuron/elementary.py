"""exp, log1p, sigmoid and softplus with the same bits on every device.

The functions of libm, NumPy and CUDA differ in their last bits between processors and versions, so these are
written once from ``+ - * /``, `rint`, comparisons and scaling by powers of two, all of which IEEE 754 defines to the
bit, in one fixed order. Every function asks its argument's array module, so the same lines run on NumPy and CuPy;
the fused kernels repeat the same sequence of operations. No operation may be contracted to a fused multiply-add.

Accuracy, checked against mpmath: `exp_negative` and `log1p_unit` are within 1 ulp of the true value.
"""

from typing import Any

from ..arrays import namespace

Array = Any

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
# ln 2 in two parts: the high part ends in 21 zero bits, so k * LN2_HIGH is exact for every exponent k that occurs.
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
# Below this, exp(x) would leave the normal numbers; at 708 the difference is far below every rounding that follows.
EXP_FLOOR = -708.0

# exp(r) = 1 + r + r^2 (1/2! + r/3! + ... + r^11/13!), highest power first: degree 13, |r| <= ln(2)/2.
EXP_COEFFICIENTS = (
    1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24,
    1 / 6, 1 / 2,
)  # fmt: skip

# log(1 + f) with s = f / (2 + f): 2 atanh(s) = 2s + s (2/3 s^2 + 2/5 s^4 + ...), highest power first, |s| <= 1/5.
LOG_COEFFICIENTS = (2 / 27, 2 / 25, 2 / 23, 2 / 21, 2 / 19, 2 / 17, 2 / 15, 2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3)


def exp_negative(x: Array) -> Array:
    """e^x for x <= 0, elementwise, float64 in and out; x below -708 is taken as -708.

    Method: k = rint(x / ln 2), r = x - k ln 2 (with its rounding error c kept), e^x = 2^k (1 + (r + (r^2 Q(r) + c))).
    Within 1 ulp. NaN stays NaN.
    """
    xp = namespace(x)
    x = xp.maximum(x, EXP_FLOOR)
    k = xp.rint(x * LOG2_E)
    high = x - k * LN2_HIGH
    low = k * LN2_LOW
    r = high - low
    c = (high - r) - low
    q = r * EXP_COEFFICIENTS[0]
    for coefficient in EXP_COEFFICIENTS[1:-1]:
        q += coefficient
        q *= r
    q += EXP_COEFFICIENTS[-1]
    q *= r * r
    q += c
    q += r
    q += 1.0
    return xp.ldexp(q, _whole_numbers(k))


def log1p_unit(t: Array) -> Array:
    """log(1 + t) for 0 <= t <= 1, elementwise, float64 in and out.

    Method: with f = t below 1/2 and f = (t - 1)/2 (exact) from there on, 1 + t = 2^n (1 + f) with n = 0 or 1; then
    s = f / (2 + f) and log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))). Within 1 ulp.
    """
    xp = namespace(t)
    upper = t >= 0.5
    f = xp.where(upper, (t - 1.0) * 0.5, t)
    s = f / (f + 2.0)
    s2 = s * s
    series = s2 * LOG_COEFFICIENTS[0]
    for coefficient in LOG_COEFFICIENTS[1:]:
        series += coefficient
        series *= s2
    half_square = f * f
    half_square *= 0.5
    series += half_square
    series *= s
    series += xp.where(upper, LN2_LOW, 0.0)
    half_square -= series
    f -= half_square
    f += xp.where(upper, LN2_HIGH, 0.0)
    return f


def log1p_positive(t: Array) -> Array:
    """log(1 + t) for t >= 0, elementwise, float64 in and out.

    Method: `log1p_unit` up to 1; beyond, 1 + t = 2^k (1 + f) with 0 <= f < 1, and log(1 + t) = k ln 2 + log(1 + f).
    Within 1.5 ulp.
    """
    xp = namespace(t)
    half, k = xp.frexp(t + 1.0)
    large = t > 1.0
    k = xp.where(large, k - 1, 0).astype(xp.float64)
    log = log1p_unit(xp.where(large, half * 2.0 - 1.0, t))
    return (log + k * LN2_LOW) + k * LN2_HIGH


def softmax_and_loss(z: Array, wanted: Array) -> tuple[Array, Array]:
    """Residuals softmax(z) - wanted, (.., K, n), and losses -log softmax(z) of the wanted class, (.., n).

    With top the largest z_k (the first of equals), t_k = e^(z_k - top) and s = the sum of t_k over the other classes in
    their order: p_k = t_k / (1 + s), loss = log(1 + s) + (top - z_y). 1 - p_y is computed as s / (1 + s) where y is the
    top class, else as (1 + the sum without it) / (1 + s): nothing cancels.

    z : (.., K, n) float64, K >= 2; wanted : the same shape, bool, one True in each column
    """
    xp = namespace(z)
    classes = z.shape[-2]
    top, place = xp.max(z, axis=-2), xp.argmax(z, axis=-2)
    others = xp.zeros(top.shape, dtype=xp.float64)
    rest, of_wanted = others, others
    shares = []
    for k in range(classes):
        share = exp_negative(z[..., k, :] - top)
        shares.append(share)
        counted = xp.where(place == k, 0.0, share)
        others = others + counted
        rest = rest + xp.where(wanted[..., k, :], 0.0, counted)
        of_wanted = xp.where(wanted[..., k, :], z[..., k, :], of_wanted)
    total = others + 1.0
    residuals = []
    for k in range(classes):
        missing = xp.where(place == k, others, rest + 1.0)
        residuals.append(xp.where(wanted[..., k, :], -(missing / total), shares[k] / total))
    return xp.stack(residuals, axis=-2), log1p_positive(others) + (top - of_wanted)


def sigmoid(z: Array) -> Array:
    """1 / (1 + e^-z), elementwise, float64 in and out: t = e^-|z|, s = 1/(1 + t), s where z >= 0 and t s elsewhere."""
    xp = namespace(z)
    t = exp_negative(-xp.abs(z))
    s = 1.0 / (t + 1.0)
    return xp.where(z >= 0.0, s, t * s)


def sigmoid_and_softplus(v: Array) -> tuple[Array, Array]:
    """sigmoid(v) = 1/(1 + e^-v) and softplus(v) = log(1 + e^v), elementwise, from one exponential.

    softplus(v) = max(v, 0) + log1p(e^-|v|): nothing overflows and nothing cancels, whatever v.
    """
    xp = namespace(v)
    t = exp_negative(-xp.abs(v))
    s = 1.0 / (t + 1.0)
    return xp.where(v >= 0.0, s, t * s), xp.maximum(v, 0.0) + log1p_unit(t)


def _whole_numbers(k: Array) -> Array:
    # NaN has no integer; NumPy would warn at the cast. Any exponent will do there: the product is NaN all the same.
    xp = namespace(k)
    return xp.where(k == k, k, 0.0).astype(xp.int32)
