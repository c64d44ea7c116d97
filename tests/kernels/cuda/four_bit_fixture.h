// 4-bit matrices for kernel tests: random ones, packed on the host by the grammar of
// kernels/cuda/four_bit_layout.h, and what a product with them must come near.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/four_bit_layout.h"
#include "kernels/cuda/four_bit_part.h"
#include "kernels/four_bit.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {

using Random = std::mt19937_64;

inline int64_t Uniform(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}
inline float UniformFloat(Random& random, float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(random);
}

// Codes, scales and, if `own_codebook`, levels at random; the others are the format's.
FourBitMatrix RandomFourBit(Random& random, WeightFormat format, int64_t n, int64_t k,
                            int32_t group_size, bool double_quant, bool own_codebook);
// Levels of eighths and scales of small powers of two: products with small integers are exact.
FourBitMatrix ExactFourBit(Random& random, int64_t n, int64_t k, int32_t group_size);

// A matrix in device memory, packed on the host. FitsUnits.
class PackedFourBit {
 public:
  explicit PackedFourBit(const FourBitMatrix& matrix);
  const FourBitView& view() const { return view_; }

 private:
  DeviceArray<uint8_t> codes_;
  DeviceArray<float> absmax_;
  DeviceArray<uint8_t> absmax_codes_;
  DeviceArray<float> nested_;
  DeviceArray<float> codebook_;
  DeviceArray<float> map_;
  FourBitView view_ = {};
};

// Σ x·w and Σ |x·w| of every output, x: [rows, k].
struct ProductSums {
  std::vector<double> sum;        // [rows, n]
  std::vector<double> magnitude;  // [rows, n]
};
ProductSums MultiplyExactly(const std::vector<float>& x, int64_t rows, const FourBitMatrix& matrix);

}  // namespace nibble::cuda
