// The three frequency rules as formulas.
#include "engine/model/rope.h"

#include <cmath>
#include <numbers>

namespace nibble {
namespace {

// Long wavelengths are stretched by `factor`, short ones kept, those between blended.
float Llama3(const RopeConfig& rope, float inv_freq) {
  const float original = static_cast<float>(rope.original_max_positions);
  const float wavelength = 2 * std::numbers::pi_v<float> / inv_freq;
  if (wavelength > original / rope.low_freq_factor) return inv_freq / rope.factor;
  if (wavelength < original / rope.high_freq_factor) return inv_freq;
  const float smooth = (original / wavelength - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * inv_freq / rope.factor + smooth * inv_freq;
}

float Scaled(const RopeConfig& rope, float inv_freq) {
  switch (rope.type) {
    case RopeType::kDefault:
      return inv_freq;
    case RopeType::kLinear:
      return inv_freq / rope.factor;
    case RopeType::kLlama3:
      return Llama3(rope, inv_freq);
  }
  return inv_freq;
}

}  // namespace

std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const double power = std::pow(static_cast<double>(rope.theta), static_cast<double>(exponent));
    frequencies[i] = Scaled(rope, 1.0f / static_cast<float>(power));
    if (!rope.freq_divisors.empty()) frequencies[i] /= rope.freq_divisors[i];
  }
  return frequencies;
}

}  // namespace nibble
