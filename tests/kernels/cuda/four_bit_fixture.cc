#include "tests/kernels/cuda/four_bit_fixture.h"

#include <cmath>

namespace nibble::cuda {
namespace {

std::vector<uint8_t> PackCodes(const FourBitMatrix& matrix) {
  const int64_t units = NumUnits(matrix.k), panels = NumPanels(matrix.n);
  std::vector<uint8_t> packed(static_cast<size_t>(panels * units * kUnitBytes));
  const auto code = [&](int64_t n, int64_t k) -> int {
    if (n >= matrix.n || k >= matrix.k) return 0;
    const int64_t i = n * matrix.k + k;
    const int byte = matrix.codes[static_cast<size_t>(i / 2)];
    return i % 2 == 0 ? byte >> 4 : byte & 15;
  };
  for (int64_t i = 0; i < panels * units * kUnitBytes; ++i) {
    const int64_t byte = i % 4, word = i / 4 % 4, lane = i / 16 % 32, unit = i / kUnitBytes;
    const int64_t n = unit / units * kPanelRows + lane / 4 + 8 * (word % 2);
    const int64_t k = unit % units * kUnitK + 32 * (word / 2) + 8 * (lane % 4) + 2 * byte;
    packed[static_cast<size_t>(i)] = static_cast<uint8_t>(code(n, k) << 4 | code(n, k + 1));
  }
  return packed;
}

// [N, K / group] as [ceil(N/16)][K / group][16].
template <typename T>
std::vector<T> PackScales(const std::vector<T>& scales, int64_t n, int64_t groups) {
  std::vector<T> packed(static_cast<size_t>(NumPanels(n) * groups * kPanelRows));
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t to = (row / kPanelRows * groups + group) * kPanelRows + row % kPanelRows;
      packed[static_cast<size_t>(to)] = scales[static_cast<size_t>(row * groups + group)];
    }
  }
  return packed;
}

template <typename T, size_t kSize>
std::vector<T> AsVector(const std::array<T, kSize>& values) {
  return std::vector<T>(values.begin(), values.end());
}

FourBitMatrix RandomCodes(Random& random, int64_t n, int64_t k, int32_t group_size) {
  FourBitMatrix matrix;
  matrix.n = n;
  matrix.k = k;
  matrix.group_size = group_size;
  matrix.codes.resize(static_cast<size_t>((n * k + 1) / 2));
  for (uint8_t& byte : matrix.codes) byte = static_cast<uint8_t>(Uniform(random, 0, 255));
  return matrix;
}

}  // namespace

FourBitMatrix RandomFourBit(Random& random, WeightFormat format, int64_t n, int64_t k,
                            int32_t group_size, bool double_quant, bool own_codebook) {
  FourBitMatrix matrix = RandomCodes(random, n, k, group_size);
  matrix.format = format;
  matrix.codebook = CodebookOf(format);
  if (own_codebook) {
    for (float& level : matrix.codebook) level = UniformFloat(random, -1.0f, 1.0f);
  }
  const size_t groups = static_cast<size_t>(matrix.NumGroups());
  matrix.absmax.resize(groups);
  for (float& scale : matrix.absmax) scale = UniformFloat(random, 0.0f, 2.0f);
  if (!double_quant) return matrix;
  matrix.double_quant = true;
  matrix.absmax.clear();
  matrix.nested_map = DynamicMap();
  matrix.absmax_codes.resize(groups);
  for (uint8_t& byte : matrix.absmax_codes) byte = static_cast<uint8_t>(Uniform(random, 0, 255));
  matrix.nested_absmax.resize((groups + 255) / 256);
  for (float& scale : matrix.nested_absmax) scale = UniformFloat(random, 0.0f, 1.0f);
  matrix.nested_offset = UniformFloat(random, 0.5f, 1.5f);
  return matrix;
}

FourBitMatrix ExactFourBit(Random& random, int64_t n, int64_t k, int32_t group_size) {
  FourBitMatrix matrix = RandomCodes(random, n, k, group_size);
  for (size_t i = 0; i < 16; ++i) {
    matrix.codebook[i] = (static_cast<float>(i) - 8.0f) / 8.0f;
  }
  matrix.absmax.resize(static_cast<size_t>(matrix.NumGroups()));
  for (float& scale : matrix.absmax)
    scale = std::ldexp(1.0f, static_cast<int>(Uniform(random, 0, 3)));
  return matrix;
}

PackedFourBit::PackedFourBit(const FourBitMatrix& matrix)
    : codes_(PackCodes(matrix)), codebook_(AsVector(matrix.codebook)) {
  const int64_t groups = matrix.k / matrix.group_size;
  if (matrix.double_quant) {
    absmax_codes_ = DeviceArray<uint8_t>(PackScales(matrix.absmax_codes, matrix.n, groups));
    std::vector<float> nested = matrix.nested_absmax;
    nested.push_back(matrix.nested_offset);
    nested_ = DeviceArray<float>(nested);
    map_ = DeviceArray<float>(AsVector(matrix.nested_map));
  } else {
    absmax_ = DeviceArray<float>(PackScales(matrix.absmax, matrix.n, groups));
  }
  view_ = {codes_.data(),
           absmax_.data(),
           absmax_codes_.data(),
           nested_.data(),
           codebook_.data(),
           map_.data(),
           matrix.n,
           matrix.k,
           matrix.group_size,
           0};
}

ProductSums MultiplyExactly(const std::vector<float>& x, int64_t rows,
                            const FourBitMatrix& matrix) {
  std::vector<float> w(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, w);
  ProductSums sums;
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < matrix.n; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < matrix.k; ++k) {
        const double product = static_cast<double>(x[static_cast<size_t>(m * matrix.k + k)]) *
                               static_cast<double>(w[static_cast<size_t>(n * matrix.k + k)]);
        sum += product;
        magnitude += std::fabs(product);
      }
      sums.sum.push_back(sum);
      sums.magnitude.push_back(magnitude);
    }
  }
  return sums;
}

}  // namespace nibble::cuda
