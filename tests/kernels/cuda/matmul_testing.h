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
