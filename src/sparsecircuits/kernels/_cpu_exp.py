"""exp for float32 that LLVM can vectorise (Numba here has no vector library): within 1e-7 of the true value."""

import numpy as np
from numba import njit

f32 = np.float32
LOWEST = np.float32(-87.0)  # exp of anything below is taken as exp(-87), 1.6e-38


@njit(nogil=True, cache=True, fastmath={"contract"})
def exponentials(x, powers, n):
    """x[:n] = exp(x[:n]) in place, for x <= 88; powers: int32 scratch of the same length. NaN stays NaN.

    exp(x) = 2^e * p(r), r = x - e ln 2 in [-0.35, 0.35], p the Cephes polynomial.
    """
    for i in range(n):
        v = LOWEST if x[i] < LOWEST else x[i]
        e = np.floor(v * f32(1.44269504) + f32(0.5))
        r = v - e * f32(0.693359375)
        r = r + e * f32(2.12194440e-4)
        p = f32(1.9875691500e-4)
        p = p * r + f32(1.3981999507e-3)
        p = p * r + f32(8.3334519073e-3)
        p = p * r + f32(4.1665795894e-2)
        p = p * r + f32(1.6666665459e-1)
        p = p * r + f32(5.0000001201e-1)
        x[i] = p * r * r + r + f32(1.0)
        powers[i] = (np.int32(e) + np.int32(127)) << np.int32(23)
    factors = powers.view(np.float32)
    for i in range(n):
        x[i] *= factors[i]
