#!/usr/bin/env python3
"""Compares 4-bit quantizing and dequantizing with real bitsandbytes on the CPU, bit for bit.

NF4 and FP4, every group size, plain and nested, from fp32, fp16 and bf16; random values and
adversarial ones (every threshold plus or minus two ulps times random scales, subnormals, both
zeros, zero groups, ragged ends, odd counts). Prints how many values it compared and how many
differed; exits 1 if any did.

Not compared, because bitsandbytes itself leaves it open or ours is a rule of its own:
  - the sign of FP4's zeros: its AVX-512 and its generic decoder differ;
  - the scale of an all-zero short last group: it stores 1e-38, we a zero (counted apart);
  - bf16 subnormals: where a row is a multiple of 16 wide, a CPU with AVX512_BF16 makes bitsandbytes
    flush them to zero; elsewhere it rounds to them, as we do (counted apart);
  - the nested offset, a mean that depends on torch's thread count: within 4 ulp, and the nested
    codes are compared given its offset.
Everything is dequantized as one row: on AVX-512 machines bitsandbytes 0.50.2 picks wrong scales
when groups straddle rows.

Run: python tests/oracle/bitsandbytes_exhaustive.py [--values 2e9 | --seconds 30]
         [--program build/release/tests/bitsandbytes_exhaustive]
"""

import argparse
import itertools
import os
import pathlib
import struct
import subprocess
import sys
import time

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # each block has its own shape, and would be compiled anew

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # in DType's order
INTS = (torch.int32, torch.int16, torch.int16)
MANTISSA_BITS = (23, 10, 7)
LARGEST = (0x7F7FFFFF, 0x7BFF, 0x7F7F)
FORMATS = ("nf4", "fp4")  # in WeightFormat's order
GROUP_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
BLOCK = 1 << 21


def thresholds(quant_type):
    code = F.get_4bit_type(quant_type, device="cpu").sort().values
    return (code[:-1] + code[1:]) / 2


class Blocks:
    """Makes values [n] of one type, group by group."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def ints(self, low, high, shape):
        return torch.randint(low, high, shape, generator=self.random)

    def uniform(self, shape):
        return torch.rand(shape, generator=self.random)

    def signs(self, shape):
        return self.ints(0, 2, shape) * 2 - 1

    def scales(self, d, groups):
        """One per group, any mantissa; far enough from fp32's ends for a mean of them."""
        low, high = (-12, 15) if DTYPES[d] == torch.float16 else (-100, 100)
        return (1 + self.uniform((groups, 1))) * torch.exp2(self.ints(low, high, (groups, 1)).float())

    def normal(self, d, groups, size, quant_type):
        values = torch.randn((groups, size), generator=self.random).clamp(-7, 7) / 8
        return (values * self.scales(d, groups)).to(DTYPES[d])

    def near_thresholds(self, d, groups, size, quant_type):
        """A group's largest value, and thresholds times it, up to two ulps of the type away."""
        scales = self.scales(d, groups).to(DTYPES[d])
        picks = thresholds(quant_type)[self.ints(0, 15, (groups, size))]
        values = (picks * scales.float()).to(DTYPES[d])
        bits = values.view(INTS[d]) + self.ints(-2, 3, (groups, size)).to(INTS[d])
        values = torch.where(values == 0, values, bits.view(DTYPES[d]))
        largest = scales * self.signs((groups, 1)).to(DTYPES[d])
        return values.scatter(1, self.ints(0, size, (groups, 1)), largest)

    def patterns(self, d, groups, size, quant_type):
        """Magnitudes uniform in their bits, down to some binades below the group's largest."""
        top = self.scales(d, groups).to(DTYPES[d]).view(INTS[d])
        depth = self.ints(1, 40, (groups, 1)) << MANTISSA_BITS[d]
        below = (self.uniform((groups, size)) * depth).to(torch.int32)
        values = (top - below).clamp(min=0).to(INTS[d]).view(DTYPES[d])
        return values * self.signs((groups, size)).to(DTYPES[d])

    def tiny(self, d, groups, size, quant_type):
        """Subnormals and the binades above them, zeros of both signs, whole groups of zeros."""
        top = self.ints(0, 6 << MANTISSA_BITS[d], (groups, 1))
        bits = (self.uniform((groups, size)) * (top + 1)).to(INTS[d])
        bits[self.ints(0, 8, (groups, 1)).squeeze(1) == 0] = 0
        return bits.view(DTYPES[d]) * self.signs((groups, size)).to(DTYPES[d])

    def make(self, kind, d, n, size, quant_type):
        groups = -(-n // size)
        values = getattr(self, kind)(d, groups, size, quant_type)
        assert values.dtype == DTYPES[d] and values.isfinite().all()
        return values.reshape(-1)[:n].contiguous()


KINDS = ("normal", "near_thresholds", "patterns", "tiny")


def bytes_of(tensor):
    return tensor.reshape(-1).view(torch.uint8).numpy()


class Comparison:
    def __init__(self, program):
        self.ours = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.values = self.mismatches = self.blocks = 0
        self.zero_tails = self.flushed = 0

    def read(self, dtype, count):
        data = bytearray(count * dtype.itemsize)
        view = memoryview(data)
        while view:
            got = self.ours.stdout.readinto(view)
            if not got:
                sys.exit("our program ended early")
            view = view[got:]
        return torch.frombuffer(data, dtype=dtype)

    def count(self, what, where, got, want):
        if torch.equal(got, want):
            return
        different = (got != want).nonzero()
        i = int(different[0])
        print(
            f"MISMATCH {where}: {len(different)} of {len(got)} {what}, first at {i}: "
            f"{got[i].item():x}, bitsandbytes {want[i].item():x}"
        )
        self.mismatches += len(different)

    def run(self, values, d, f, size, nested, where):
        n = values.numel()
        packed, state = F.quantize_4bit(
            values, blocksize=size, compress_statistics=nested, quant_type=FORMATS[f]
        )
        offset = state.offset.item() if nested else 0.0
        self.ours.stdin.write(struct.pack("<iiiiqqfi", d, f, size, nested, 1, n, offset, 0))
        self.ours.stdin.write(bytes_of(values))
        self.ours.stdin.flush()

        groups = -(-n // size)
        self.count("packed codes", where, self.read(torch.uint8, (n + 1) // 2), packed.reshape(-1))
        if nested:
            own = self.read(torch.float32, 1).view(torch.int32).item()
            if abs(own - state.offset.view(torch.int32).item()) > 4:
                print(f"MISMATCH {where}: offset {own:x}, bitsandbytes {offset!r}")
                self.mismatches += 1
            self.count("absmax codes", where, self.read(torch.uint8, groups), state.absmax)
            got = self.read(torch.int32, -(-groups // 256))
            self.count("nested absmax", where, got, state.state2.absmax.view(torch.int32))
        else:
            want = state.absmax.view(torch.int32).clone()
            if n % size and not values[n - n % size :].any():
                want[-1] = 0
                self.zero_tails += 1
            self.count("absmax", where, self.read(torch.int32, groups), want)

        state.shape = torch.Size((1, n) if n % 2 == 0 else (n, 1))
        want = F.dequantize_4bit(packed, state).reshape(-1).view(INTS[d])
        got = self.read(INTS[d], n)
        if DTYPES[d] == torch.bfloat16 and n % 16 == 0:
            magnitude = got.bitwise_and(0x7FFF)  # 0x80: a subnormal rounded up to the least normal
            flushed = ((want << 1) == 0) & (magnitude > 0) & (magnitude <= 0x80)
            self.flushed += int(flushed.sum())
            got[flushed] = want[flushed]
        if FORMATS[f] == "fp4" and not torch.equal(got, want):
            got[(got << 1) == 0] = 0
            want[(want << 1) == 0] = 0
        self.count("dequantized values", where, got, want)
        self.values += n
        self.blocks += 1


def find_program(given):
    if given:
        return given
    build = ROOT / "build" / "release"
    command = ["cmake", "--build", build, "--target", "bitsandbytes_exhaustive"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return build / "tests" / "bitsandbytes_exhaustive"


def sweep(comparison, seed, done):
    """Every form with every kind of values once: one large block and some small ragged ones."""
    blocks = Blocks(seed)
    forms = list(itertools.product(range(2), GROUP_SIZES, range(3), (False, True), KINDS))
    for index in torch.randperm(len(forms), generator=blocks.random).tolist():
        f, size, d, nested, kind = forms[index]
        large = BLOCK // 4 + int(blocks.ints(0, 3 * BLOCK // 2, (1,)))
        large -= large % (1, 2, 16, size)[int(blocks.ints(0, 4, (1,)))]  # the decoders differ in n
        for n in [large] + blocks.ints(1, 3 * size, (4,)).tolist():
            values = blocks.make(kind, d, n, size, FORMATS[f])
            if nested and n % size and not values[n - n % size :].any():
                values[-1] = torch.finfo(DTYPES[d]).tiny  # else its scale is not bitsandbytes'
            form = "nested" if nested else "plain"
            where = f"{FORMATS[f]} {size} {form} {DTYPES[d]} {kind} n={n} seed={seed}"
            comparison.run(values, d, f, size, nested, where)
        if done():
            return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", type=float, default=2e9)
    parser.add_argument("--seconds", type=float, default=0, help="stop by the clock instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", help="built under build/release if absent")
    args = parser.parse_args()
    start = time.monotonic()
    comparison = Comparison(find_program(args.program))

    def done():
        if args.seconds:
            return time.monotonic() - start >= args.seconds
        return comparison.values >= args.values

    for seed in itertools.count(args.seed):
        sweep(comparison, seed, done)
        spent = time.monotonic() - start
        print(f"{comparison.values:,} values, {comparison.mismatches} mismatches, {spent:.0f} s")
        sys.stdout.flush()
        if done():
            break
    comparison.ours.stdin.close()
    failed = comparison.ours.wait() != 0 or comparison.mismatches > 0
    print(
        f"bitsandbytes {bnb.__version__}, torch {torch.__version__}: compared "
        f"{comparison.values:,} values in {comparison.blocks:,} matrices: "
        f"{comparison.mismatches} mismatches (apart: {comparison.zero_tails} zero short groups hold "
        f"0, not 1e-38; {comparison.flushed:,} subnormal bf16 flushed by bitsandbytes)"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
