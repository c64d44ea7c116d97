// Quantizing to NF4 and back, on the baseline ISA. The arithmetic is bitsandbytes' CPU path to the
// last bit: a full group is multiplied by the reciprocal of its scale, a short last group is
// divided by it, and both clamp the scale to 1e-38 first.
#include "kernels/four_bit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr std::array<float, 16> kCodebook = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

constexpr std::array<float, 16> kFp4Codebook = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f,
};

constexpr std::array<float, 15> Midpoints() {
  std::array<float, 15> midpoints{};
  for (size_t i = 0; i < midpoints.size(); ++i) {
    midpoints[i] = (kCodebook[i] + kCodebook[i + 1]) / 2;
  }
  return midpoints;
}
constexpr std::array<float, 15> kThresholds = Midpoints();

constexpr float kSmallestDivisor = 1e-38f;
constexpr uint32_t kInfBits = 0x7f800000u;
constexpr double kLastBin = 65535;  // of the dynamic map's bins
constexpr int64_t kChunk = 32;      // the smallest group: one step of the inner loop

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "four_bit: %s\n", what);
  std::abort();
}

// |value|'s bits order like |value|, and NaN and Inf come last: one integer maximum, which unlike a
// float one may be taken in any order, finds the scale and what must be refused.
uint32_t LargestMagnitudeBits(const float* values, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<int32_t>(values[i]) & 0x7fffffff);
  }
  return static_cast<uint32_t>(largest);
}

// Packs kChunk scaled values into kChunk / 2 bytes. Counting thresholds has no branch and
// vectorizes on any ISA, in 32-bit lanes as wide as the comparison's.
void EncodeChunk(const float* scaled, uint8_t* packed) {
  int32_t codes[kChunk];
  for (int64_t i = 0; i < kChunk; ++i) {
    int32_t code = 0;
    for (const float threshold : kThresholds) code += scaled[i] > threshold ? 1 : 0;
    codes[i] = code;
  }
  for (int64_t j = 0; j < kChunk / 2; ++j) {
    packed[j] = static_cast<uint8_t>(codes[2 * j] << 4 | codes[2 * j + 1]);
  }
}

void EncodeFullGroup(const float* values, int64_t group_size, float absmax, uint8_t* packed) {
  const float inverse = 1.0f / std::max(absmax, kSmallestDivisor);
  for (int64_t begin = 0; begin < group_size; begin += kChunk) {
    float scaled[kChunk];
    for (int64_t i = 0; i < kChunk; ++i) scaled[i] = values[begin + i] * inverse;
    EncodeChunk(scaled, packed + begin / 2);
  }
}

void EncodeShortGroup(const float* values, int64_t count, float divisor, uint8_t* packed) {
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t chunk = std::min(kChunk, count - begin);
    float scaled[kChunk] = {};
    for (int64_t i = 0; i < chunk; ++i) scaled[i] = values[begin + i] / divisor;
    uint8_t bytes[kChunk / 2];
    EncodeChunk(scaled, bytes);
    std::copy_n(bytes, (chunk + 1) / 2, packed + begin / 2);
  }
}

absl::Status NotFinite(int64_t offset, std::span<const float> group) {
  const auto bad =
      std::find_if(group.begin(), group.end(), [](float v) { return !std::isfinite(v); });
  return absl::InvalidArgumentError(absl::StrCat("value at flat index ",
                                                 offset + (bad - group.begin()), " is ", *bad,
                                                 "; 4 bits hold finite values only"));
}

float Mean(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return static_cast<float>(sum / static_cast<double>(values.size()));
}

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

const std::array<float, 16>& Nf4Codebook() { return kCodebook; }

const std::array<float, 16>& Fp4Codebook() { return kFp4Codebook; }

const std::array<float, 16>& CodebookOf(WeightFormat format) {
  Require(IsFourBit(format), "a format of 4 bits");
  return format == WeightFormat::kNf4 ? kCodebook : kFp4Codebook;
}

const std::array<float, 15>& Nf4Thresholds() { return kThresholds; }

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

bool NeedsOwnTables(const FourBitMatrix& matrix) {
  if (matrix.codebook != CodebookOf(matrix.format)) return true;
  return matrix.double_quant && matrix.nested_map != DynamicMap();
}

bool IsAllowedGroupSize(int64_t group_size) {
  return group_size >= 32 && group_size <= 4096 &&
         std::has_single_bit(static_cast<uint64_t>(group_size));
}

FourBitQuantizer::FourBitQuantizer(int64_t n, int64_t k, const FourBitForm& form) : form_(form) {
  Require(n > 0 && k > 0, "a matrix has at least one row and one column");
  Require(IsAllowedGroupSize(form.group_size), "the group size is 32, 64, 128 … 4096");
  matrix_.format = form.format;
  matrix_.n = n;
  matrix_.k = k;
  matrix_.group_size = form.group_size;
  matrix_.codebook = CodebookOf(form.format);
  matrix_.codes.resize(static_cast<size_t>((matrix_.NumValues() + 1) / 2));
  matrix_.absmax.resize(static_cast<size_t>(matrix_.NumGroups()));
}

absl::Status FourBitQuantizer::Add(int64_t offset, std::span<const float> values) {
  const int64_t group_size = matrix_.group_size;
  const auto size = static_cast<int64_t>(values.size());
  const int64_t total = matrix_.NumValues();
  Require(offset >= 0 && offset <= total && size <= total - offset, "a slice lies in its matrix");
  Require(offset % group_size == 0, "a slice begins with a group");
  Require(size % group_size == 0 || offset + size == total, "only the last slice ends in a group");

  for (int64_t begin = 0; begin < size; begin += group_size) {
    const int64_t count = std::min(group_size, size - begin);
    const auto group = values.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    const uint32_t bits = LargestMagnitudeBits(group.data(), count);
    if (bits >= kInfBits) return NotFinite(offset + begin, group);

    float absmax = std::bit_cast<float>(bits);
    uint8_t* packed = matrix_.codes.data() + (offset + begin) / 2;
    if (count == group_size) {
      EncodeFullGroup(group.data(), count, absmax, packed);
    } else {
      const float divisor = std::max(absmax, kSmallestDivisor);
      EncodeShortGroup(group.data(), count, divisor, packed);
      if (absmax > 0) absmax = divisor;  // bitsandbytes stores the clamped one, and we its zero
    }
    matrix_.absmax[static_cast<size_t>((offset + begin) / group_size)] = absmax;
  }
  return absl::OkStatus();
}

FourBitMatrix FourBitQuantizer::Finish() {
  if (form_.double_quant) NestScales(Mean(matrix_.absmax), &matrix_);
  return std::move(matrix_);
}

absl::StatusOr<FourBitMatrix> QuantizeFourBit(std::span<const float> values, int64_t n, int64_t k,
                                              const FourBitForm& form) {
  FourBitQuantizer quantizer(n, k, form);
  Require(static_cast<int64_t>(values.size()) == n * k, "a matrix has N·K values");
  if (absl::Status status = quantizer.Add(0, values); !status.ok()) return status;
  return quantizer.Finish();
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

void DequantizeFourBit(const FourBitMatrix& matrix, int64_t offset, std::span<float> values) {
  const auto end = offset + static_cast<int64_t>(values.size());
  Require(offset >= 0 && end <= matrix.NumValues(), "a slice lies in its matrix");
  float* out = values.data();
  for (int64_t i = offset; i < end;) {
    const int64_t group = i / matrix.group_size;
    const int64_t group_end = std::min(end, (group + 1) * matrix.group_size);
    std::array<float, 16> scaled = matrix.codebook;
    for (float& value : scaled) value *= GroupScale(matrix, group);
    for (; i < group_end; ++i) {
      const uint8_t pair = matrix.codes[static_cast<size_t>(i / 2)];
      *out++ = scaled[i % 2 == 0 ? pair >> 4 : pair & 15];
    }
  }
}

}  // namespace nibble
