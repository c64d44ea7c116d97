// Double quantization: the scales' own 8 bits. The dynamic map and the rounding to it are what
// bitsandbytes' C++ CPU path does, and nothing here knows of 4-bit codes.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "kernels/four_bit.h"

namespace nibble {
namespace {

constexpr double kLastBin = 65535;  // of the dynamic map's bins

// torch.linspace(0.1, 1, count) as its fused-multiply-add build computes it: from both ends.
std::vector<float> Boundaries(int count) {
  std::vector<float> boundaries(static_cast<size_t>(count));
  const float step = (1.0f - 0.1f) / static_cast<float>(count - 1);
  for (int j = 0; j < count; ++j) {
    boundaries[static_cast<size_t>(j)] =
        j < count / 2 ? std::fma(step, static_cast<float>(j), 0.1f)
                      : std::fma(-step, static_cast<float>(count - 1 - j), 1.0f);
  }
  return boundaries;
}

// For each decade 10^(i-6), the middles of 2^i equal intervals of [0.1, 1], with both signs; then 0
// and 1.
std::array<float, 256> MakeDynamicMap() {
  constexpr std::array<float, 7> kDecades = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  std::array<float, 256> map{};
  size_t size = 0;
  for (size_t i = 0; i < kDecades.size(); ++i) {
    const std::vector<float> boundaries = Boundaries((1 << i) + 1);
    for (size_t j = 0; j + 1 < boundaries.size(); ++j) {
      const float value = kDecades[i] * ((boundaries[j] + boundaries[j + 1]) / 2);
      map[size++] = value;
      map[size++] = -value;
    }
  }
  map[size++] = 0.0f;
  map[size++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

// The map's entry nearest to the centre of each of 65,536 bins that span [-1, 1]; the lower one of
// two.
std::array<uint8_t, 65536> MakeBinCodes() {
  const std::array<float, 256>& map = DynamicMap();
  std::array<uint8_t, 65536> codes{};
  size_t code = 0;
  for (size_t bin = 0; bin < codes.size(); ++bin) {
    const float centre = -1.0f + static_cast<float>(2 * bin) / static_cast<float>(kLastBin);
    while (code < 255 && 0.5f * (map[code] + map[code + 1]) < centre) ++code;
    codes[bin] = static_cast<uint8_t>(code);
  }
  return codes;
}

}  // namespace

const std::array<float, 256>& DynamicMap() {
  static const std::array<float, 256> map = MakeDynamicMap();
  return map;
}

uint8_t DynamicCode(float value) {
  static const std::array<uint8_t, 65536> codes = MakeBinCodes();
  if (!(value > -1.0f)) return codes[0];  // also NaN, which 0 · (1 / subnormal) is
  // Multiply and add rounded once, as bitsandbytes' fused form: the product is exact in double.
  const float half = (std::min(value, 1.0f) + 1.0f) * 0.5f;
  const auto bin = static_cast<float>(static_cast<double>(half) * kLastBin + 0.5);
  return codes[static_cast<size_t>(bin)];
}

void NestScales(float offset, FourBitMatrix* matrix) {
  const std::vector<float> absmax = std::exchange(matrix->absmax, {});
  matrix->double_quant = true;
  matrix->nested_offset = offset;
  matrix->nested_map = DynamicMap();
  matrix->absmax_codes.assign(absmax.size(), 0);
  matrix->nested_absmax.clear();
  for (size_t begin = 0; begin < absmax.size(); begin += kNestedGroup) {
    const size_t end = std::min<size_t>(begin + kNestedGroup, absmax.size());
    float largest = 0;
    for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(absmax[i] - offset));
    matrix->nested_absmax.push_back(largest);
    if (largest == 0) continue;  // code 0, times scale 0
    const float inverse = 1.0f / largest;
    for (size_t i = begin; i < end; ++i) {
      matrix->absmax_codes[i] = DynamicCode((absmax[i] - offset) * inverse);
    }
  }
}

float GroupScale(const FourBitMatrix& matrix, int64_t group) {
  const auto i = static_cast<size_t>(group);
  if (!matrix.double_quant) return matrix.absmax[i];
  const float difference =
      matrix.nested_map[matrix.absmax_codes[i]] * matrix.nested_absmax[i / kNestedGroup];
  return difference + matrix.nested_offset;
}

}  // namespace nibble
