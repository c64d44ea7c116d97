// What the tests of products share: host matrices on the device with poisoned margins, weights of
// every format in device memory, and what a product should be, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/device_tables.h"
#include "kernels/cuda/four_bit_pack.h"
#include "tests/kernels/cpu/cpu_testing.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {

// A host Matrix in device memory, its margin included. `alignment` 4 lets rows begin anywhere.
class DeviceMatrix {
 public:
  explicit DeviceMatrix(const Matrix& host, int64_t alignment = 16)
      : rows_(host.rows()),
        cols_(host.cols()),
        stride_(host.View().stride),
        values_(std::vector<float>(host.View().data, host.View().data + rows_ * stride_),
                alignment) {}
  Activations View() const { return {values_.data(), rows_, cols_, stride_}; }
  Matrix Get() const {
    Matrix host(rows_, cols_, stride_ - cols_);
    const std::vector<float> values = values_.Get();
    std::copy(values.begin(), values.end(), host.View().data);
    return host;
  }

 private:
  int64_t rows_, cols_, stride_;
  DeviceArray<float> values_;
};

// A bias of any type on the device, and as the numbers that it stands for.
class DeviceBias {
 public:
  DeviceBias() = default;
  DeviceBias(DType type, const std::vector<float>& values) : type_(type), values_(values) {
    if (type == DType::kF32) {
      wide_ = DeviceArray<float>(values, 4);
      return;
    }
    const WeightFormat format = type == DType::kF16 ? WeightFormat::kF16 : WeightFormat::kBf16;
    const std::vector<uint16_t> halves = ToHalves(format, values);
    narrow_ = DeviceArray<uint16_t>(halves, 2);
    for (size_t i = 0; i < halves.size(); ++i) {
      values_[i] = type == DType::kF16 ? F16ToF32(halves[i]) : Bf16ToF32(halves[i]);
    }
  }
  VectorView View() const {
    const void* data = type_ == DType::kF32 ? static_cast<const void*>(wide_.data())
                                            : static_cast<const void*>(narrow_.data());
    return {values_.empty() ? nullptr : data, type_, static_cast<int64_t>(values_.size())};
  }
  // The same values on the host, fp32.
  VectorView HostView() const {
    return {values_.empty() ? nullptr : values_.data(), DType::kF32,
            static_cast<int64_t>(values_.size())};
  }
  double At(int64_t n) const {
    return values_.empty() ? 0.0 : double{values_[static_cast<size_t>(n)]};
  }

 private:
  DType type_ = DType::kF32;
  std::vector<float> values_;
  DeviceArray<float> wide_;
  DeviceArray<uint16_t> narrow_;
};

inline DeviceBias RandomBias(int64_t n, Random& random) {
  switch (random.Below(4)) {
    case 0:
      return {};
    case 1:
      return {DType::kF32, random.Normals(n)};
    case 2:
      return {DType::kF16, random.Normals(n)};
    default:
      return {DType::kBF16, random.Normals(n)};
  }
}

// The formats' tables on the device.
class DeviceFormatTables {
 public:
  DeviceFormatTables()
      : nf4_(std::vector<float>(Nf4Codebook().begin(), Nf4Codebook().end()), 4),
        fp4_(std::vector<float>(Fp4Codebook().begin(), Fp4Codebook().end()), 4),
        map_(std::vector<float>(DynamicMap().begin(), DynamicMap().end()), 4) {}
  DeviceTables View() const { return {nf4_.data(), fp4_.data(), map_.data()}; }

 private:
  DeviceArray<float> nf4_, fp4_, map_;
};

// A matrix of any format, packed by the device's own kernels.
class DeviceWeight {
 public:
  explicit DeviceWeight(const FourBitMatrix& matrix)
      : DeviceWeight(SpecOf(matrix), FourBitPackedBytes(SpecOf(matrix))) {
    const int64_t panels = NumPanels(matrix.n);
    const DeviceArray<uint8_t> codes(matrix.codes);
    const DeviceArray<uint8_t> absmax_codes(matrix.absmax_codes);
    const DeviceArray<float> absmax(matrix.absmax);
    Tape tape;
    PackFourBitCodes(&tape, weight_, 0, panels, codes.data());
    const void* const scales = matrix.double_quant ? static_cast<const void*>(absmax_codes.data())
                                                   : static_cast<const void*>(absmax.data());
    if (GroupsInRows(weight_.spec)) {
      PackFourBitScales(&tape, weight_, 0, panels, scales);
    } else {
      tape.AddCopy(weight_.scales, scales, scales_.size());
    }
    Play(tape);
    std::vector<float> nested = matrix.nested_absmax;
    nested.push_back(matrix.nested_offset);
    if (matrix.double_quant) CopyNow(weight_.nested, nested.data(), nested_.size());
    if (!weight_.spec.own_tables) return;
    std::vector<float> tables(matrix.codebook.begin(), matrix.codebook.end());
    tables.insert(tables.end(), matrix.nested_map.begin(), matrix.nested_map.end());
    CopyNow(weight_.tables, tables.data(), tables_.size());
  }
  DeviceWeight(const Int8Matrix& matrix, float threshold)
      : DeviceWeight(WeightSpec{.format = WeightFormat::kInt8,
                                .n = matrix.n,
                                .k = matrix.k,
                                .outlier_threshold = threshold}) {
    std::vector<int8_t> rows(static_cast<size_t>(codes_.size()));
    for (int64_t n = 0; n < matrix.n; ++n) {
      std::copy_n(matrix.codes.data() + n * matrix.k, matrix.k,
                  rows.data() + n * Int8Stride(matrix.k));
    }
    CopyNow(weight_.codes, rows.data(), codes_.size());
    CopyNow(weight_.scales, matrix.absmax.data(), scales_.size());
  }
  DeviceWeight(WeightFormat format, int64_t n, int64_t k, const std::vector<uint16_t>& values)
      : DeviceWeight(WeightSpec{.format = format, .n = n, .k = k}) {
    CopyNow(weight_.codes, values.data(), codes_.size());
  }
  DeviceWeight(DeviceWeight&&) = default;

  const Weight& weight() const { return weight_; }

 private:
  static WeightSpec SpecOf(const FourBitMatrix& matrix) {
    return {matrix.format,         matrix.n, matrix.k, matrix.group_size, matrix.double_quant,
            NeedsOwnTables(matrix)};
  }
  explicit DeviceWeight(const WeightSpec& spec) : DeviceWeight(spec, DensePackedBytes(spec)) {}
  DeviceWeight(const WeightSpec& spec, const PackedSize& size)
      : codes_(size.codes, 64),
        scales_(size.scales),
        nested_(size.nested, 4),
        tables_(size.tables, 4),
        weight_{spec, codes_.data(), scales_.data(), nested_.data(), tables_.data()} {}

  DeviceArray<char> codes_, scales_, nested_, tables_;
  Weight weight_;
};

// Bits, but any NaN equals any other.
inline void ExpectSameNumbers(const Matrix& got, const Matrix& want, const std::string& what) {
  ASSERT_EQ(got.rows(), want.rows());
  ASSERT_EQ(got.cols(), want.cols());
  EXPECT_TRUE(got.MarginIsIntact()) << what;
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      if (std::isnan(got.At(r, c)) && std::isnan(want.At(r, c))) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(got.At(r, c)), std::bit_cast<uint32_t>(want.At(r, c)))
          << what << " at [" << r << "," << c << "]: got " << got.At(r, c) << ", want "
          << want.At(r, c);
    }
  }
}

inline Matrix RowsOf(const Matrix& all, int64_t first, int64_t count) {
  Matrix some(count, all.cols(), all.View().stride - all.cols());
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(all.View().Row(first + r), all.cols(), some.View().Row(r));
  }
  return some;
}

}  // namespace nibble::cuda
