// Rows of quantized tables in device memory, bit for bit as the format's own dequantization (and so
// the CPU) gives them, read and added.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/int8.h"
#include "tests/kernels/cuda/four_bit_testing.h"

namespace nibble::cuda {
namespace {

using QuantizedEmbedding = CudaTest;

// Some rows of `values` [V, D] that `table` stands for, into rows that begin anywhere.
void ExpectRows(Dice& dice, const DeviceTables& tables, const Weight& table,
                const std::vector<float>& values) {
  const int64_t vocab = table.spec.n, width = table.spec.k;
  const int64_t rows = dice.Between(1, 6), stride = width + dice.Between(0, 4);
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < rows; ++r) {
    ids.push_back(static_cast<int32_t>(dice.Between(0, vocab - 1)));
  }
  const std::vector<float> before = dice.Normals((rows - 1) * stride + width);
  const bool accumulate = dice.Chance();
  const DeviceArray<int32_t> device_ids(ids, 4);
  const DeviceArray<float> out(before, 4);
  Tape tape;
  Embedding(&tape, tables, table, device_ids.data(), accumulate, {out.data(), rows, width, stride});
  Play(tape);
  std::vector<float> want = before;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      float& to = want[static_cast<size_t>(r * stride + c)];
      const float value = values[static_cast<size_t>(ids[static_cast<size_t>(r)] * width + c)];
      to = accumulate ? value + to : value;
    }
  }
  const std::vector<float> got = out.Get();
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << Name(table.spec.format) << " [" << vocab << "," << width << "] group "
        << table.spec.group_size << ", value " << i << ": got " << got[i] << ", want " << want[i];
  }
}

// A multiple of 32, so that groups lie in rows, as often as any number.
int64_t Width(Dice& dice) {
  if (dice.Between(0, 30) == 0) return dice.Between(500, 4200);
  return dice.Chance() ? 32 * dice.Between(1, 12) : dice.Between(1, 300);
}

TEST_F(QuantizedEmbedding, OfFourBitsIsBitExactForAnyFormAndShape) {
  Dice dice(21);
  const TestTables formats;
  ForMachineSeeds(2, [&] {
    for (int i = 0; i < 200; ++i) {
      WeightSpec spec;
      spec.format = dice.Chance() ? WeightFormat::kNf4 : WeightFormat::kFp4;
      spec.group_size = static_cast<int32_t>(32) << dice.Between(0, 4);
      spec.double_quant = dice.Chance();
      spec.own_tables = dice.Between(0, 4) == 0;
      spec.n = dice.Between(1, 40);
      spec.k = Width(dice);
      const FourBitMatrix matrix = RandomFourBit(dice, spec);
      const DeviceFourBit packed(matrix);
      ASSERT_NO_FATAL_FAILURE(
          ExpectRows(dice, formats.tables(), packed.weight(), Dequantized(matrix)));
    }
  });
}

TEST_F(QuantizedEmbedding, OfInt8IsBitExactForAnyShape) {
  Dice dice(22);
  ForMachineSeeds(2, [&] {
    for (int i = 0; i < 200; ++i) {
      Int8Matrix matrix = MakeInt8Matrix(dice.Between(1, 40), Width(dice));
      matrix.codes = dice.Bytes<int8_t>(matrix.n * matrix.k);
      matrix.absmax = dice.Normals(matrix.n);
      std::vector<float> values(matrix.codes.size());
      DequantizeInt8(matrix, 0, values);
      const int64_t stride = Int8Stride(matrix.k);
      std::vector<int8_t> rows(static_cast<size_t>(matrix.n * stride), 0);
      for (int64_t n = 0; n < matrix.n; ++n) {
        std::memcpy(rows.data() + n * stride, matrix.codes.data() + n * matrix.k,
                    static_cast<size_t>(matrix.k));
      }
      const DeviceArray<int8_t> codes(rows);
      const DeviceArray<float> scales(matrix.absmax);
      Weight table;
      table.spec = {.format = WeightFormat::kInt8, .n = matrix.n, .k = matrix.k};
      table.codes = codes.data();
      table.scales = scales.data();
      ASSERT_NO_FATAL_FAILURE(ExpectRows(dice, {}, table, values));
    }
  });
}

}  // namespace
}  // namespace nibble::cuda
