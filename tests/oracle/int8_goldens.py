"""Writes tests/golden/int8/: what real bitsandbytes makes of small matrices on the CPU, LLM.int8().

  index.txt  "#" lines tell the versions; then one case per line:
             quantize name N K
             product name M N K threshold bias(0|1)
  int8.bin   the cases' arrays in that order, little-endian, nothing between them:
             quantize: values f32[N*K], CB i8[N*K], SCB f32[N], dequantized f32[N*K]
             product:  x f32[M*K] (values of fp16), CB i8[N*K], SCB f32[N], bias f32[N] (of fp16),
                       CA i8[M*K], SCA f32[M], out f32[M*N] (of fp16).
                       bitsandbytes was called with one row of x at a time.

Run: python tests/oracle/int8_goldens.py
"""

import pathlib
import sys

import bitsandbytes as bnb
import bitsandbytes.functional as F
import numpy as np
import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "golden" / "int8"
RNG = np.random.default_rng(20261122)


def normal(n, k, scale=0.05):
    return (RNG.standard_normal((n, k)) * scale).astype(np.float32)


def ties(n, k):
    """Rows with absmax 127: halves are ties of the code, and fp32 neighbours of fp16's own ties."""
    x = RNG.integers(-126, 126, (n, k)).astype(np.float32) + np.float32(0.5)
    x[:, 0] = 127
    x[1::2] += np.float32(0.03125) * RNG.integers(-1, 2, x[1::2].shape).astype(np.float32)
    x[1::2, 0] = 127
    return x


def extremes(n, k):
    """Rows from fp16's subnormals to its largest values; zeros of both signs; single values."""
    x = RNG.uniform(-1, 1, (n, k)).astype(np.float32)
    powers = [4.8, -7, -5, 0, -4.2, 3, -7.5, 4]
    for i in range(n):
        x[i] *= np.float32(10.0 ** powers[i % len(powers)])
    x[0, 0] = 65519  # rounds to 65504
    x[3] = 0
    x[3, ::2] = -0.0
    x[4, 1:] = 0
    x[6] = np.float32(2.0**-25)  # a tie that fp16 rounds to zero
    return x


def quantize_case(w):
    half = torch.from_numpy(w).half()
    cb, scb, _ = F.int8_vectorwise_quant(half)
    return [w, cb.numpy(), scb.numpy(), F.int8_vectorwise_dequant(cb, scb).numpy()]


def product_case(m, n, k, threshold, with_bias, outliers):
    x = (RNG.standard_normal((m, k)) * 1.2).clip(-5.9, 5.9)
    for row, column in outliers:
        x[row, column] = RNG.choice([-1, 1]) * RNG.uniform(6, 60)
    x = torch.from_numpy(x.astype(np.float32)).half()
    cb, scb, _ = F.int8_vectorwise_quant(torch.from_numpy(normal(n, k)).half())
    bias = torch.from_numpy(normal(1, n, 1.0)[0] * np.float32(with_bias)).half()
    ca, sca, out = [], [], []
    for row in x.split(1):
        state = bnb.MatmulLtState()
        state.CB, state.SCB, state.threshold = cb, scb, threshold
        state.has_fp16_weights, state.is_training = False, False  # training on a CPU is in fp16
        codes, stat, _ = F.int8_vectorwise_quant(row.clone(), threshold=threshold)
        ca.append(codes.numpy())
        sca.append(stat.numpy())
        result = bnb.matmul(row.clone(), cb, bias=bias if with_bias else None, state=state)
        assert result.dtype == torch.float16
        out.append(result.float().numpy())
    return [x.float().numpy(), cb.numpy(), scb.numpy(), bias.float().numpy(), np.concatenate(ca),
            np.concatenate(sca), np.concatenate(out)]


QUANTIZE = [
    ("normal", normal(7, 96)),
    ("odd", normal(5, 33)),
    ("one_value", normal(1, 1)),
    ("ties", ties(6, 64)),
    ("extremes", extremes(8, 40)),
]
PRODUCT = [
    ("plain", 3, 20, 64, 0.0, 0, []),
    ("plain_with_large_values", 3, 17, 72, 0.0, 1, [(0, 5), (2, 70)]),
    ("no_outliers", 3, 20, 64, 6.0, 1, []),
    ("outliers", 5, 33, 96, 6.0, 1, [(0, 3), (1, 3), (1, 95), (3, 0), (3, 1), (3, 2), (3, 50)]),
    ("outliers_no_bias", 2, 16, 100, 6.0, 0, [(0, 99), (1, 4), (1, 5)]),
    ("only_outliers", 1, 16, 32, 6.0, 1, [(0, k) for k in range(32)]),
]


def main():
    assert bnb.__version__.startswith("0.50."), bnb.__version__
    OUT.mkdir(parents=True, exist_ok=True)
    capability = torch.backends.cpu.get_cpu_capability()
    lines = [
        f"# Written by tests/oracle/{pathlib.Path(__file__).name}, which tells the format.",
        f"# bitsandbytes {bnb.__version__}, torch {torch.__version__}, cpu {capability},"
        f" numpy {np.__version__}",
    ]
    with open(OUT / "int8.bin", "wb") as binary:
        for name, w in QUANTIZE:
            lines.append(f"quantize {name} {w.shape[0]} {w.shape[1]}")
            for array in quantize_case(w):
                binary.write(array.tobytes())
        for name, m, n, k, threshold, with_bias, outliers in PRODUCT:
            lines.append(f"product {name} {m} {n} {k} {threshold} {with_bias}")
            for array in product_case(m, n, k, threshold, with_bias, outliers):
                binary.write(array.tobytes())
    (OUT / "index.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
