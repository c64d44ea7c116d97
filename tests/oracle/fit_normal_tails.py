"""Fits NormalTails' polynomial in kernels/cpu/lanes_math.inl and prints its error. Wants numpy.

R(a) of degree 7 for e^(a·R(a)) = erfc(a/√2) on [0, 6]: least squares of the error of a/2·erfc(a/√2)
over a, reweighted until its peaks are even (Lawson's iteration).
"""

import math

import numpy as np

DEGREE, END = 7, 6.0


def main():
    a = np.linspace(1e-4, END, 4000)
    tails = np.array([math.erfc(v / math.sqrt(2)) for v in a])
    wanted = np.log(tails) / a
    error_weight = a * tails / 2
    powers = np.vander(a / END, DEGREE + 1, increasing=True)
    lawson = np.ones_like(a)
    for _ in range(400):
        weight = error_weight * np.sqrt(lawson)
        fit = np.linalg.lstsq(powers * weight[:, None], wanted * weight, rcond=None)[0]
        error = np.abs((powers @ fit - wanted) * error_weight)
        lawson *= error / error.max() + 1e-3
        lawson /= lawson.mean()
    print("error of GELU over |x|: 2^%.1f" % math.log2(error.max()))
    print(", ".join("%.9g" % np.float32(c / END**i) for i, c in enumerate(fit)))


if __name__ == "__main__":
    main()
