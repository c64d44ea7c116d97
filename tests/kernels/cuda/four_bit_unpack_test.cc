// Packed matrices to plain values against kernels/four_bit.h, bit for bit.
#include "kernels/cuda/four_bit_unpack.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>

#include "tests/kernels/cuda/four_bit_testing.h"

namespace nibble::cuda {
namespace {

using FourBitUnpack = CudaTest;

uint32_t BitsIn(DType type, float value) {
  return type == DType::kF32 ? std::bit_cast<uint32_t>(value) : F32ToHalf(type, value);
}

// Rows [first, first + count) of the matrix with a margin between rows; how many values there are.
int64_t Check(const FourBitMatrix& matrix, const DeviceFourBit& packed, DType type, int64_t first,
              int64_t count, int64_t stride, int64_t alignment) {
  const int64_t size = SizeOf(type);
  const DeviceArray<uint8_t> out(((count - 1) * stride + matrix.k) * size, alignment);
  const std::vector<uint8_t> before = out.Get();
  Tape tape;
  UnpackFourBit(&tape, packed.view(), first, count, type, out.data(), stride);
  Play(tape);
  const std::vector<uint8_t> after = out.Get();
  std::vector<float> want(static_cast<size_t>(count * matrix.k));
  DequantizeFourBit(matrix, first * matrix.k, want);
  int64_t mismatches = 0;
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t k = 0; k < stride && row * stride + k < out.size() / size; ++k) {
      const size_t at = static_cast<size_t>((row * stride + k) * size);
      const std::vector<uint8_t>& wanted = before;
      for (int64_t b = 0; b < size; ++b) {
        const size_t byte = at + static_cast<size_t>(b);
        const uint32_t bits =
            k < matrix.k ? BitsIn(type, want[static_cast<size_t>(row * matrix.k + k)]) >> (8 * b)
                         : wanted[byte];
        mismatches += after[byte] != static_cast<uint8_t>(bits) ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(mismatches, 0) << Name(type) << " rows " << first << " + " << count << " of "
                           << matrix.n << "x" << matrix.k << " group " << matrix.group_size
                           << " nested " << matrix.double_quant;
  return count * matrix.k;
}

WeightSpec RandomSpec(Dice& dice, int64_t max_n, int64_t max_k) {
  WeightSpec spec;
  spec.format = dice.Chance() ? WeightFormat::kNf4 : WeightFormat::kFp4;
  spec.group_size = static_cast<int32_t>(32) << dice.Between(0, 7);
  spec.double_quant = dice.Chance();
  spec.own_tables = dice.Between(0, 4) == 0;
  spec.n = dice.Between(1, max_n);
  spec.k = dice.Chance() ? 32 * dice.Between(1, max_k / 32) : dice.Between(1, max_k);
  return spec;
}

TEST_F(FourBitUnpack, IsBitExactForAnyFormShapeAndRows) {
  Dice dice(10);
  for (int i = 0; i < 600; ++i) {
    SetMachineSeed(static_cast<uint64_t>(i));
    const FourBitMatrix matrix = RandomFourBit(dice, RandomSpec(dice, 40, 300));
    const DeviceFourBit packed(matrix);
    const DType type = static_cast<DType>(dice.Between(0, 2));
    const int64_t first = dice.Between(0, matrix.n - 1);
    const int64_t count = dice.Between(1, matrix.n - first);
    const bool aligned = dice.Chance();
    const int64_t stride = aligned ? (matrix.k + 7) / 8 * 8 : matrix.k + dice.Between(0, 5);
    Check(matrix, packed, type, first, count, stride, aligned ? 16 : SizeOf(type));
    if (HasFailure()) return;
  }
}

// Goal G7 of the kernels' design. NIBBLE_LONG_TESTS=1 runs it: minutes under the emulator.
TEST_F(FourBitUnpack, HasNoMismatchInAHundredMillionValues) {
  if (std::getenv("NIBBLE_LONG_TESTS") == nullptr) {
    GTEST_SKIP() << "takes minutes; set NIBBLE_LONG_TESTS=1";
  }
  Dice dice(11);
  int64_t values = 0;
  while (values < 100'000'000 && !HasFailure()) {
    const FourBitMatrix matrix = RandomFourBit(dice, RandomSpec(dice, 600, 4096));
    const DeviceFourBit packed(matrix);
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
      const int64_t stride = (matrix.k + 7) / 8 * 8;
      values += Check(matrix, packed, type, 0, matrix.n, stride, 16);
    }
  }
  std::printf("%lld values, 0 mismatches\n", static_cast<long long>(values));
}

}  // namespace
}  // namespace nibble::cuda
