// Dice 4-bit matrices, in host memory and packed in device memory, for the tests of the kernels
// that read them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cuda/four_bit_pack.h"
#include "kernels/cuda/four_bit_part.h"
#include "kernels/cuda/prepared_rows.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) {  // both included
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }
  bool Chance() { return Between(0, 1) == 1; }
  float Normal() { return normal_(engine_); }
  template <typename T>
  std::vector<T> Bytes(int64_t size) {
    std::vector<T> values(static_cast<size_t>(size));
    for (T& value : values) value = static_cast<T>(engine_());
    return values;
  }
  std::vector<float> Normals(int64_t size, float scale = 1) {
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) value = scale * Normal();
    return values;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// Any codes and scales, some of them zero; with own_tables any tables too.
inline FourBitMatrix RandomFourBit(Dice& dice, const WeightSpec& spec) {
  FourBitMatrix matrix;
  matrix.format = spec.format;
  matrix.n = spec.n;
  matrix.k = spec.k;
  matrix.group_size = spec.group_size;
  matrix.double_quant = spec.double_quant;
  matrix.codes = dice.Bytes<uint8_t>((matrix.NumValues() + 1) / 2);
  if (matrix.NumValues() % 2 == 1) {
    matrix.codes.back() = static_cast<uint8_t>((matrix.codes.back() & 0xf0u) |
                                               (spec.format == WeightFormat::kNf4 ? 7u : 0u));
  }
  matrix.codebook = CodebookOf(spec.format);
  matrix.nested_map = DynamicMap();
  if (spec.own_tables) {
    for (float& value : matrix.codebook) value = dice.Normal();
    for (float& value : matrix.nested_map) value = dice.Normal();
  }
  if (spec.double_quant) {
    matrix.absmax_codes = dice.Bytes<uint8_t>(matrix.NumGroups());
    matrix.nested_absmax = dice.Normals((matrix.NumGroups() + 255) / 256, 0.05f);
    matrix.nested_offset = 0.1f;
  } else {
    matrix.absmax = dice.Normals(matrix.NumGroups(), 0.1f);
    for (float& value : matrix.absmax) value = value < -0.2f ? 0.0f : std::fabs(value);
  }
  return matrix;
}

inline WeightSpec SpecOf(const FourBitMatrix& matrix) {
  return {matrix.format,         matrix.n, matrix.k, matrix.group_size, matrix.double_quant,
          NeedsOwnTables(matrix)};
}

// The formats' tables on the device.
class TestTables {
 public:
  TestTables()
      : nf4_({Nf4Codebook().begin(), Nf4Codebook().end()}),
        fp4_({Fp4Codebook().begin(), Fp4Codebook().end()}),
        map_({DynamicMap().begin(), DynamicMap().end()}) {}
  DeviceTables tables() const { return {nf4_.data(), fp4_.data(), map_.data()}; }

 private:
  DeviceArray<float> nf4_, fp4_, map_;
};

// A matrix packed in device memory, by slices of `slice` panels.
class DeviceFourBit {
 public:
  explicit DeviceFourBit(const FourBitMatrix& matrix, int64_t slice = 1 << 20)
      : DeviceFourBit(SpecOf(matrix)) {
    const int64_t panels = NumPanels(matrix.n);
    for (int64_t first = 0; first < panels; first += slice) {
      Pack(matrix, first, std::min(slice, panels - first));
    }
    if (!GroupsInRows(weight_.spec)) {
      matrix.double_quant ? CopyNow(weight_.scales, matrix.absmax_codes.data(), matrix.NumGroups())
                          : CopyNow(weight_.scales, matrix.absmax.data(), matrix.NumGroups() * 4);
    }
    std::vector<float> tables(matrix.codebook.begin(), matrix.codebook.end());
    if (matrix.double_quant) {
      std::vector<float> nested = matrix.nested_absmax;
      nested.push_back(matrix.nested_offset);
      nested_.Set(nested);
      tables.insert(tables.end(), matrix.nested_map.begin(), matrix.nested_map.end());
    }
    if (weight_.spec.own_tables) tables_.Set(tables);
  }

  const Weight& weight() const { return weight_; }
  FourBitView view() const { return ViewOf(weight_, formats_.tables()); }
  std::vector<uint8_t> codes() const { return codes_.Get(); }
  std::vector<uint8_t> scales() const { return scales_.Get(); }

 private:
  explicit DeviceFourBit(const WeightSpec& spec) {
    const PackedSize size = FourBitPackedBytes(spec);
    codes_ = DeviceArray<uint8_t>(size.codes, 64);
    scales_ = DeviceArray<uint8_t>(size.scales, 16);
    nested_ = DeviceArray<float>(size.nested / 4, 4);
    tables_ = DeviceArray<float>(size.tables / 4, 4);
    weight_ = {spec, codes_.data(), scales_.data(), nested_.data(), tables_.data()};
  }
  void Pack(const FourBitMatrix& matrix, int64_t first, int64_t count) {
    const FourBitSlice codes = CodesOfPanels(weight_.spec, first, count);
    const DeviceArray<uint8_t> staged(codes.bytes, 4);
    CopyNow(staged.data(), matrix.codes.data() + codes.begin, codes.bytes);
    Tape tape;
    PackFourBitCodes(&tape, weight_, first, count, staged.data());
    if (!GroupsInRows(weight_.spec)) return Play(tape);
    const FourBitSlice scales = ScalesOfPanels(weight_.spec, first, count);
    const DeviceArray<uint8_t> staged_scales(scales.bytes, 4);
    const void* const from = matrix.double_quant
                                 ? static_cast<const void*>(matrix.absmax_codes.data())
                                 : static_cast<const void*>(matrix.absmax.data());
    CopyNow(staged_scales.data(), static_cast<const char*>(from) + scales.begin, scales.bytes);
    PackFourBitScales(&tape, weight_, first, count, staged_scales.data());
    Play(tape);
  }

  TestTables formats_;
  DeviceArray<uint8_t> codes_, scales_;
  DeviceArray<float> nested_, tables_;
  Weight weight_;
};

inline std::vector<float> Dequantized(const FourBitMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, values);
  return values;
}

// Rows of x as the tensor cores take them, made on the host.
class PreparedTestRows {
 public:
  PreparedTestRows(const std::vector<float>& x, int64_t rows, int64_t k) : rows_(rows), k_(k) {
    const int64_t stride = PreparedStride(k);
    std::vector<uint16_t> values(static_cast<size_t>(rows * stride), 0);
    std::vector<float> scales;
    for (int64_t m = 0; m < rows; ++m) {
      float largest = 0;
      for (int64_t i = 0; i < k; ++i) largest = std::max(largest, std::fabs(x[At(m, i, k)]));
      // The largest becomes at least 1 and less than 2.
      const float scale = largest > 0 ? std::ldexp(1.0f, std::ilogb(largest)) : 1.0f;
      for (int64_t i = 0; i < k; ++i) values[At(m, i, stride)] = F32ToF16(x[At(m, i, k)] / scale);
      scales.push_back(scale);
      for (int64_t i = 0; i < k; ++i) {
        kept_.push_back(F16ToF32(values[At(m, i, stride)]) * scale);
      }
    }
    values_ = DeviceArray<uint16_t>(values);
    scales_ = DeviceArray<float>(scales, 4);
  }
  PreparedRows rows() const {
    return {values_.data(), scales_.data(), rows_, k_, PreparedStride(k_)};
  }
  PreparedRows Row(int64_t m) const {
    const int64_t stride = PreparedStride(k_);
    return {values_.data() + m * stride, scales_.data() + m, 1, k_, stride};
  }
  // x as the 16 bits hold it: [rows, k].
  const std::vector<float>& kept() const { return kept_; }

 private:
  static size_t At(int64_t row, int64_t i, int64_t stride) {
    return static_cast<size_t>(row * stride + i);
  }
  int64_t rows_, k_;
  DeviceArray<uint16_t> values_;
  DeviceArray<float> scales_;
  std::vector<float> kept_;
};

}  // namespace nibble::cuda
