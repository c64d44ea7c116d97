"""Writes tests/golden/four_bit/: what real bitsandbytes makes, on the CPU, of small awkward matrices.

  index.txt        "#" lines tell the versions; then, in the order of the arrays in four_bit.bin,
                     source NAME fp32|fp16|bf16 N K
                     case nf4|fp4 GROUP_SIZE plain|nested      (of the source above it)
  four_bit.bin     little-endian, nothing between the arrays:
                   source: values[N*K] in its own type
                   case:   codes u8[(N*K+1)/2],
                           plain:  absmax f32[G]
                           nested: absmax_codes u8[G], nested_absmax f32[ceil(G/256)], nested_offset f32
                           u64 FNV-1a of the bytes of the dequantized values in the source's type,
                           FP4's negative zeros made positive: bitsandbytes writes either
  dynamic_map.bin  f32[256] the dynamic map, then u8[256] the code of each of its entries

Run: python tests/oracle/four_bit_goldens.py
"""

import pathlib
import sys

import bitsandbytes as bnb
import bitsandbytes.functional as F
import numpy as np
import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "golden" / "four_bit"
RNG = np.random.default_rng(20261122)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
GROUP_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)


def normal(n, k):
    return RNG.standard_normal((n, k)).astype(np.float32)


def outliers(n, k):
    x = normal(n, k)
    x.reshape(-1)[RNG.integers(0, n * k, n * k // 50 + 1)] *= 40
    return x


def zero_groups(n, k):
    x = normal(n, k).reshape(-1)
    x[64:128] = 0
    x[192:256] = -0.0
    x[::37] = -0.0
    return x.reshape(n, k)


def extremes(n, k):
    """Each group of 64 at its own power of ten, down to fp32's subnormals and up to where a mean of
    scales in fp32 would overflow."""
    x = RNG.uniform(-1, 1, n * k).astype(np.float32)
    powers = [37, -40, 30, -45, -38, -37, 0, 36, -30, -42, 20, -44]
    for i in range(0, n * k, 64):
        x[i : i + 64] *= np.float32(10.0 ** powers[(i // 64) % len(powers)])
    return x.reshape(n, k)


def subnormal_tail(n, k):
    x = normal(n, k).reshape(-1)
    x[n * k // 64 * 64 :] = np.float32(3e-39) * np.sign(x[n * k // 64 * 64 :])
    return x.reshape(n, k)


def sorted_codebook(quant_type):
    return np.sort(F.get_4bit_type(quant_type, device="cpu").numpy())


def near_thresholds(quant_type):
    """Scaled values within two ulps of a decision threshold: reciprocal and division differ here."""
    code = sorted_codebook(quant_type)
    thresholds = (code[:-1] + code[1:]) / np.float32(2)

    def make(n, k):
        x = np.empty((n * k,), np.float32)
        for i in range(n * k):
            if i % 64 == 0:
                absmax = np.float32(RNG.uniform(0.5, 4))
                x[i] = absmax
            else:
                bits = np.float32(thresholds[i % 15] * absmax).view(np.int32) + RNG.integers(-2, 3)
                x[i] = np.int32(bits).view(np.float32)
        return x.reshape(n, k)

    return make


def half_bits(n, k):
    """Any finite pattern of 16 bits, 12 binades at a time: subnormals, both zeros, the largest."""
    exponent = RNG.integers(0, 20, n * k // 32 + 1).repeat(32)[: n * k]
    x = RNG.integers(0, 1 << 15, n * k)
    x = np.minimum(x >> 3 | exponent << 10, 0x7BFF) | RNG.integers(0, 2, n * k) << 15
    return x.astype(np.uint16).view(np.float16).astype(np.float32).reshape(n, k)


# name, dtype, N, K, values, group sizes
SOURCES = [
    ("straddling_96", "fp32", 7, 96, normal, (64,)),
    ("straddling_172", "fp32", 7, 172, outliers, (64,)),
    ("straddling_200", "bf16", 5, 200, normal, (64,)),
    ("odd_65", "fp32", 9, 65, normal, (64,)),
    ("odd_65_bf16", "bf16", 9, 65, normal, (64,)),
    ("one_value", "fp32", 1, 1, normal, (64,)),
    ("one_group", "fp16", 1, 64, normal, (64,)),
    ("odd_3x3", "fp32", 3, 3, normal, (32,)),
    ("zero_groups", "fp32", 3, 200, zero_groups, (64,)),
    ("extremes", "fp32", 13, 65, extremes, (64, 32)),
    ("extremes_bf16", "bf16", 13, 65, extremes, (64, 32)),
    ("half_bits", "fp16", 13, 65, half_bits, (64, 32)),
    ("subnormal_tail", "fp32", 2, 65, subnormal_tail, (64,)),
    ("near_nf4_thresholds", "fp32", 9, 65, near_thresholds("nf4"), (64,)),
    ("near_fp4_thresholds", "fp32", 9, 65, near_thresholds("fp4"), (64,)),
    ("two_nested_groups", "bf16", 43, 193, normal, (32,)),
]
for size in GROUP_SIZES:
    for name in DTYPES:
        SOURCES.append((f"group_{size}_{name}", name, 3, size // 2 + 7, normal, (size,)))


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def raw(tensor):
    tensor = tensor.contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes()


def write_case(out, values, quant_type, group_size, nested):
    packed, state = F.quantize_4bit(
        values, blocksize=group_size, compress_statistics=nested, quant_type=quant_type
    )
    out.write(raw(packed))
    out.write(raw(state.absmax))
    if nested:
        out.write(raw(state.state2.absmax) + raw(state.offset))
    # Dequantized as one row: on AVX-512 machines bitsandbytes 0.50.2 picks the wrong scales when
    # groups straddle rows and the width is a multiple of 16.
    n = values.numel()
    state.shape = torch.Size((1, n) if n % 2 == 0 else (n, 1))
    dequantized = F.dequantize_4bit(packed, state)
    assert dequantized.dtype == values.dtype
    if quant_type == "fp4":
        dequantized[dequantized == 0] = 0.0
    out.write(fnv1a(raw(dequantized)).to_bytes(8, "little"))


def main():
    torch.set_num_threads(1)  # the mean behind nested_offset depends on it
    OUT.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Written by tests/oracle/four_bit_goldens.py, which tells the format.",
        f"# bitsandbytes {bnb.__version__}, torch {torch.__version__}, "
        f"cpu {torch.backends.cpu.get_cpu_capability()}, numpy {np.__version__}",
    ]
    with open(OUT / "four_bit.bin", "wb") as out:
        for name, dtype, n, k, make, group_sizes in SOURCES:
            values = torch.from_numpy(make(n, k)).to(DTYPES[dtype])
            values = torch.where(values.isfinite(), values, torch.zeros_like(values))
            out.write(raw(values))
            lines.append(f"source {name} {dtype} {n} {k}")
            for group_size in group_sizes:
                for quant_type in ("nf4", "fp4"):
                    for nested in (False, True):
                        write_case(out, values, quant_type, group_size, nested)
                        form = "nested" if nested else "plain"
                        lines.append(f"case {quant_type} {group_size} {form}")
    (OUT / "index.txt").write_text("\n".join(lines) + "\n")

    dynamic_map = F.create_dynamic_map()
    codes, _ = F.quantize_blockwise(dynamic_map, code=dynamic_map, blocksize=256)
    assert codes.dtype == torch.uint8
    (OUT / "dynamic_map.bin").write_bytes(dynamic_map.numpy().tobytes() + codes.numpy().tobytes())


if __name__ == "__main__":
    sys.exit(main())
