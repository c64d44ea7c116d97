"""Writes tests/golden/nf4/: what real bitsandbytes makes, on the CPU, of small awkward matrices.

  index.txt        "#" lines tell the versions; then one case per line:
                   name N K group_size double_quant(0|1)
  nf4.bin          the cases' arrays in that order, little-endian, nothing between them:
                   values f32[N*K], codes u8[(N*K+1)/2],
                   plain:  absmax f32[G]
                   nested: absmax_codes u8[G], nested_absmax f32[ceil(G/256)], nested_offset f32
                   dequantized f32[N*K]
  dynamic_map.bin  f32[256] the dynamic map, then u8[256] the code of each of its entries

Run: python tests/oracle/nf4_goldens.py
"""

import pathlib
import sys

import bitsandbytes as bnb
import bitsandbytes.functional as F
import numpy as np
import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "golden" / "nf4"
RNG = np.random.default_rng(20261122)


def normal(n, k):
    return RNG.standard_normal((n, k)).astype(np.float32)


def outliers(n, k):
    x = normal(n, k)
    x.reshape(-1)[RNG.integers(0, n * k, n * k // 50 + 1)] *= 40
    return x


def bf16(n, k):
    return torch.from_numpy(normal(n, k) * np.float32(0.02)).bfloat16().float().numpy()


def zero_groups(n, k):
    x = normal(n, k).reshape(-1)
    x[64:128] = 0
    x[192:256] = -0.0
    x[::37] = -0.0
    return x.reshape(n, k)


def extremes(n, k):
    """Each group of 64 at its own power of ten, fp32's subnormals and its largest values included."""
    x = RNG.uniform(-1, 1, n * k).astype(np.float32)
    powers = [38, -45, 30, -40, -38, -37, 0, 37, -30, -42, 20, -44]
    for i in range(0, n * k, 64):
        x[i : i + 64] *= np.float32(10.0 ** powers[(i // 64) % len(powers)])
    return x.reshape(n, k)


def subnormal_tail(n, k):
    x = normal(n, k).reshape(-1)
    x[n * k // 64 * 64 :] = np.float32(3e-39) * np.sign(x[n * k // 64 * 64 :])
    return x.reshape(n, k)


def near_thresholds(n, k):
    """Scaled values within two ulps of a decision threshold: reciprocal and division differ here."""
    code = F.get_4bit_type("nf4", device="cpu").numpy()
    thresholds = (code[:-1] + code[1:]) / np.float32(2)
    x = np.empty((n * k,), np.float32)
    for i in range(n * k):
        if i % 64 == 0:
            absmax = np.float32(RNG.uniform(0.5, 4))
            x[i] = absmax
        else:
            bits = np.float32(thresholds[i % 15] * absmax).view(np.int32) + RNG.integers(-2, 3)
            x[i] = np.int32(bits).view(np.float32)
    return x.reshape(n, k)


CASES = [
    ("straddling_96_plain", 7, 96, 64, 0, normal),
    ("straddling_96_nested", 5, 96, 64, 1, normal),
    ("straddling_172_plain", 3, 172, 64, 0, outliers),
    ("straddling_172_nested", 7, 172, 64, 1, outliers),
    ("straddling_200_plain", 5, 200, 64, 0, normal),
    ("straddling_200_nested", 5, 200, 64, 1, normal),
    ("odd_65_plain", 9, 65, 64, 0, normal),
    ("odd_65_nested", 9, 65, 64, 1, normal),
    ("one_value_plain", 1, 1, 64, 0, normal),
    ("one_value_nested", 1, 1, 64, 1, normal),
    ("one_group_nested", 1, 64, 64, 1, normal),
    ("odd_3x3_plain", 3, 3, 32, 0, normal),
    ("bf16_576_nested", 4, 576, 64, 1, bf16),
    ("zero_groups_plain", 3, 200, 64, 0, zero_groups),
    ("zero_groups_nested", 3, 200, 64, 1, zero_groups),
    ("extremes_plain", 13, 65, 64, 0, extremes),
    ("extremes_nested", 13, 65, 64, 1, extremes),
    ("subnormal_tail_plain", 2, 65, 64, 0, subnormal_tail),
    ("near_thresholds_plain", 9, 65, 64, 0, near_thresholds),
    ("two_nested_groups_32", 43, 193, 32, 1, normal),
    ("group_32_plain", 5, 67, 32, 0, normal),
    ("group_128_nested", 5, 130, 128, 1, normal),
    ("group_256_plain", 5, 130, 256, 0, normal),
    ("group_512_nested", 5, 130, 512, 1, normal),
    ("group_1024_plain", 9, 130, 1024, 0, normal),
    ("group_2048_nested", 17, 130, 2048, 1, normal),
    ("group_4096_plain", 33, 130, 4096, 0, normal),
]


def write_case(out, values, group_size, nested):
    packed, state = F.quantize_4bit(
        torch.from_numpy(values),
        blocksize=group_size,
        compress_statistics=bool(nested),
        quant_type="nf4",
    )
    # Dequantized as one row: on AVX-512 machines bitsandbytes 0.50.2 picks the wrong scales when
    # groups straddle rows and the width is a multiple of 16.
    state.shape = torch.Size((1, values.size) if values.size % 2 == 0 else (values.size, 1))
    dequantized = F.dequantize_4bit(packed, state)
    arrays = [values, packed.numpy()]
    if nested:
        arrays += [state.absmax.numpy(), state.state2.absmax.numpy(), state.offset.numpy()]
    else:
        arrays += [state.absmax.numpy()]
    arrays += [dequantized.numpy()]
    for array in arrays:
        out.write(np.ascontiguousarray(array).tobytes())


def main():
    torch.set_num_threads(1)  # the mean behind nested_offset depends on it
    OUT.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Written by tests/oracle/nf4_goldens.py, which tells the format.",
        f"# bitsandbytes {bnb.__version__}, torch {torch.__version__}, "
        f"cpu {torch.backends.cpu.get_cpu_capability()}, numpy {np.__version__}",
    ]
    with open(OUT / "nf4.bin", "wb") as out:
        for name, n, k, group_size, nested, make in CASES:
            write_case(out, make(n, k), group_size, nested)
            lines.append(f"{name} {n} {k} {group_size} {nested}")
    (OUT / "index.txt").write_text("\n".join(lines) + "\n")

    dynamic_map = F.create_dynamic_map()
    codes, _ = F.quantize_blockwise(dynamic_map, code=dynamic_map, blocksize=256)
    assert codes.dtype == torch.uint8
    (OUT / "dynamic_map.bin").write_bytes(dynamic_map.numpy().tobytes() + codes.numpy().tobytes())


if __name__ == "__main__":
    sys.exit(main())
