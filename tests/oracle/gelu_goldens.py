"""Prints the golden tails of GELU in tests/kernels/reference_test.cc, by 110-digit arithmetic."""

from decimal import Decimal, getcontext

getcontext().prec = 110
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def erfc(y):
    """1 - erf by its Taylor series; 110 digits outlast the cancellation for y <= 9."""
    term, total, n = y, y, 0
    while abs(term) > Decimal(10) ** -90:
        n += 1
        term = -term * y * y / n
        total += term / (2 * n + 1)
    return 1 - 2 * total / PI.sqrt()


if __name__ == "__main__":
    for x in (Decimal(-6), Decimal(-8), Decimal(-12)):
        print("exact", x, f"{x / 2 * erfc(-x / Decimal(2).sqrt()):.16e}")
    for x in (Decimal(-4), Decimal(-5), Decimal(-6)):
        inner = (2 / PI).sqrt() * (x + Decimal("0.044715") * x**3)
        print("tanh", x, f"{x / (1 + (-2 * inner).exp()):.16e}")
