// The packed 4-bit layout against its grammar, and back to the checkpoint's bytes.
#include "kernels/cuda/four_bit_pack.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/cuda/four_bit_testing.h"

namespace nibble::cuda {
namespace {

using FourBitPack = CudaTest;

WeightSpec RandomSpec(Dice& dice) {
  WeightSpec spec;
  spec.format = dice.Chance() ? WeightFormat::kNf4 : WeightFormat::kFp4;
  spec.group_size = static_cast<int32_t>(32) << dice.Between(0, 2);
  spec.double_quant = dice.Chance();
  spec.own_tables = dice.Between(0, 4) == 0;
  spec.n = dice.Between(1, 50);
  spec.k = dice.Chance() ? spec.group_size * dice.Between(1, 3) : dice.Between(1, 200);
  return spec;
}

uint32_t CodeOf(const FourBitMatrix& matrix, int64_t row, int64_t k) {
  if (row >= matrix.n || k >= matrix.k) return 0;
  const int64_t flat = row * matrix.k + k;
  const uint8_t pair = matrix.codes[static_cast<size_t>(flat / 2)];
  return flat % 2 == 0 ? pair >> 4 : pair & 15u;
}

// The layout's grammar, byte by byte.
std::vector<uint8_t> WantedCodes(const FourBitMatrix& matrix) {
  std::vector<uint8_t> bytes;
  for (int64_t panel = 0; panel < NumPanels(matrix.n); ++panel) {
    for (int64_t unit = 0; unit < NumUnits(matrix.k); ++unit) {
      for (int64_t i = 0; i < kUnitBytes; ++i) {
        const int64_t lane = i / 16, word = i % 16 / 4, byte = i % 4;
        const int64_t row = panel * 16 + lane / 4 + word % 2 * 8;
        const int64_t k = unit * 64 + word / 2 * 32 + lane % 4 * 8 + 2 * byte;
        const uint32_t pair = CodeOf(matrix, row, k) << 4 | CodeOf(matrix, row, k + 1);
        bytes.push_back(static_cast<uint8_t>(pair));
      }
    }
  }
  return bytes;
}

// [panel][group][16 rows], or the array as it is.
template <typename T>
std::vector<uint8_t> WantedScales(const FourBitMatrix& matrix, const std::vector<T>& scales) {
  std::vector<T> wanted = scales;
  if (matrix.k % matrix.group_size == 0) {
    const int64_t groups = matrix.k / matrix.group_size;
    wanted.assign(static_cast<size_t>(NumPanels(matrix.n) * groups * 16), T{0});
    for (int64_t row = 0; row < matrix.n; ++row) {
      for (int64_t g = 0; g < groups; ++g) {
        wanted[static_cast<size_t>((row / 16 * groups + g) * 16 + row % 16)] =
            scales[static_cast<size_t>(row * groups + g)];
      }
    }
  }
  std::vector<uint8_t> bytes(wanted.size() * sizeof(T));
  std::memcpy(bytes.data(), wanted.data(), bytes.size());
  return bytes;
}

TEST_F(FourBitPack, FollowsTheGrammarForAnyShapeAndSlice) {
  Dice dice(1);
  for (int i = 0; i < 600; ++i) {
    const FourBitMatrix matrix = RandomFourBit(dice, RandomSpec(dice));
    const DeviceFourBit packed(matrix, dice.Between(1, 4));
    SCOPED_TRACE(testing::Message() << matrix.n << "x" << matrix.k << " group " << matrix.group_size
                                    << " nested " << matrix.double_quant);
    ASSERT_EQ(packed.codes(), WantedCodes(matrix));
    ASSERT_EQ(packed.scales(), matrix.double_quant ? WantedScales(matrix, matrix.absmax_codes)
                                                   : WantedScales(matrix, matrix.absmax));
  }
}

TEST_F(FourBitPack, GivesEveryByteBack) {
  Dice dice(2);
  for (int i = 0; i < 600; ++i) {
    const FourBitMatrix matrix = RandomFourBit(dice, RandomSpec(dice));
    const DeviceFourBit packed(matrix);
    const WeightSpec& spec = packed.weight().spec;
    std::vector<uint8_t> codes, scales;
    const int64_t slice = dice.Between(1, 4), panels = NumPanels(matrix.n);
    for (int64_t first = 0; first < panels; first += slice) {
      const int64_t count = std::min(slice, panels - first);
      const DeviceArray<uint8_t> staged(CodesOfPanels(spec, first, count).bytes, 1);
      Tape tape;
      UnpackFourBitCodes(&tape, packed.weight(), first, count, staged.data());
      Play(tape);
      const std::vector<uint8_t> part = staged.Get();
      codes.insert(codes.end(), part.begin(), part.end());
      if (!GroupsInRows(spec)) continue;
      tape.Clear();
      const DeviceArray<uint8_t> staged_scales(ScalesOfPanels(spec, first, count).bytes, 4);
      UnpackFourBitScales(&tape, packed.weight(), first, count, staged_scales.data());
      Play(tape);
      const std::vector<uint8_t> part_scales = staged_scales.Get();
      scales.insert(scales.end(), part_scales.begin(), part_scales.end());
    }
    ASSERT_EQ(codes, matrix.codes) << matrix.n << "x" << matrix.k;
    if (!GroupsInRows(spec)) continue;
    ASSERT_EQ(std::memcmp(scales.data(),
                          matrix.double_quant ? static_cast<const void*>(matrix.absmax_codes.data())
                                              : static_cast<const void*>(matrix.absmax.data()),
                          scales.size()),
              0);
  }
}

TEST_F(FourBitPack, TakesNoByteMoreThanTheCheckpointWithoutTails) {
  const WeightSpec plain = {WeightFormat::kNf4, 4096, 14336, 64, false};
  EXPECT_EQ(FourBitPackedBytes(plain).codes, 4096 * 14336 / 2);
  EXPECT_EQ(FourBitPackedBytes(plain).scales, 4096 * 14336 / 64 * 4);
  EXPECT_EQ(FourBitPackedBytes(plain).Total(), 4096 * 14336 / 2 + 4096 * 14336 / 16);
  const WeightSpec nested = {WeightFormat::kNf4, 4096, 14336, 64, true};
  EXPECT_EQ(FourBitPackedBytes(nested).scales, 4096 * 14336 / 64);
  EXPECT_EQ(FourBitPackedBytes(nested).nested, 4096 * 14336 / 64 / 256 * 4 + 4);
  EXPECT_EQ(FourBitPackedBytes(nested).tables, 0);
}

}  // namespace
}  // namespace nibble::cuda
