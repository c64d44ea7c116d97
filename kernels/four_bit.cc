// Quantizing to NF4 and FP4 and back. The arithmetic is bitsandbytes' CPU path to the last bit: a
// full group is multiplied by the reciprocal of its scale, a short last group is divided by it, and
// both clamp the scale to 1e-38 first. The loops over full groups are four_bit_rows.h's.
#include "kernels/four_bit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/four_bit_rows.h"
#include "kernels/four_bit_search.h"
#include "kernels/half.h"

namespace nibble {
namespace {

constexpr std::array<float, 16> kNf4Codebook = {
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

constexpr int64_t kLargestGroup = 4096;

// Ranks are the codebook in ascending order, equal values (FP4's two zeros) in that of their codes,
// and a threshold is the midpoint of two neighbours. So FP4's code of a tiny positive value is 8,
// of zero and of a tiny negative one 0.
constexpr FourBitRule MakeRule(const std::array<float, 16>& codebook) {
  FourBitRule rule{};
  for (size_t code = 0; code < 16; ++code) {
    size_t rank = 0;
    for (size_t other = 0; other < 16; ++other) {
      const bool before =
          codebook[other] < codebook[code] || (codebook[other] == codebook[code] && other < code);
      rank += before ? 1 : 0;
    }
    rule.codes[rank] = static_cast<uint8_t>(code);
    rule.levels[rank] = codebook[code];
  }
  for (size_t i = 0; i < 15; ++i) rule.thresholds[i] = (rule.levels[i] + rule.levels[i + 1]) / 2;
  return rule;
}
constexpr FourBitRule kNf4Rule = MakeRule(kNf4Codebook);
constexpr FourBitRule kFp4Rule = MakeRule(kFp4Codebook);

constexpr std::array<float, 15> ThresholdsOf(const FourBitRule& rule) {
  std::array<float, 15> thresholds{};
  for (size_t i = 0; i < 15; ++i) thresholds[i] = rule.thresholds[i];
  return thresholds;
}
constexpr std::array<float, 15> kNf4Thresholds = ThresholdsOf(kNf4Rule);

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "four_bit: %s\n", what);
  std::abort();
}

float ValueAt(DType dtype, const void* values, int64_t i) {
  if (dtype == DType::kF32) return static_cast<const float*>(values)[i];
  return HalfToF32(dtype, static_cast<const uint16_t*>(values)[i]);
}

void Widen(DType dtype, const void* values, int64_t begin, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = ValueAt(dtype, values, begin + static_cast<int64_t>(i));
  }
}

// Of values[begin ..), one of which is not finite.
absl::Status NotFinite(DType dtype, const void* values, int64_t begin, int64_t offset) {
  int64_t i = begin;
  while (std::isfinite(ValueAt(dtype, values, i))) ++i;
  return absl::InvalidArgumentError(absl::StrCat("value at flat index ", offset + i, " is ",
                                                 ValueAt(dtype, values, i),
                                                 "; 4 bits hold finite values only"));
}

float Mean(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return static_cast<float>(sum / static_cast<double>(values.size()));
}

// The matrix's codebook times one group's scale.
std::array<float, 16> ScaledCodebook(const FourBitMatrix& matrix, int64_t group) {
  const float scale = GroupScale(matrix, group);
  std::array<float, 16> scaled = matrix.codebook;
  for (float& value : scaled) value *= scale;
  return scaled;
}

}  // namespace

const std::array<float, 16>& Nf4Codebook() { return kNf4Codebook; }

const std::array<float, 15>& Nf4Thresholds() { return kNf4Thresholds; }

const std::array<float, 16>& Fp4Codebook() { return kFp4Codebook; }

const std::array<float, 16>& CodebookOf(WeightFormat format) {
  Require(IsFourBit(format), "a format of 4 bits");
  return format == WeightFormat::kNf4 ? kNf4Codebook : kFp4Codebook;
}

const FourBitRule& RuleOf(WeightFormat format) {
  Require(IsFourBit(format), "a format of 4 bits");
  return format == WeightFormat::kNf4 ? kNf4Rule : kFp4Rule;
}

bool NeedsOwnTables(const FourBitMatrix& matrix) {
  // Equality of floats is that of bits but for a zero's sign, and for a NaN, which no table has.
  if (matrix.codebook != CodebookOf(matrix.format)) return true;
  return matrix.double_quant && matrix.nested_map != DynamicMap();
}

bool IsAllowedGroupSize(int64_t group_size) {
  return group_size >= 32 && group_size <= kLargestGroup &&
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
  return AddSlice(offset, DType::kF32, values.data(), static_cast<int64_t>(values.size()));
}

absl::Status FourBitQuantizer::Add(int64_t offset, DType dtype, std::span<const uint16_t> values) {
  Require(dtype != DType::kF32, "16-bit values are bf16 or fp16");
  return AddSlice(offset, dtype, values.data(), static_cast<int64_t>(values.size()));
}

absl::Status FourBitQuantizer::AddSlice(int64_t offset, DType dtype, const void* values,
                                        int64_t size) {
  const int64_t group_size = matrix_.group_size;
  const int64_t total = matrix_.NumValues();
  Require(offset >= 0 && offset <= total && size <= total - offset, "a slice lies in its matrix");
  Require(offset % group_size == 0, "a slice begins with a group");
  Require(size % group_size == 0 || offset + size == total, "only the last slice ends in a group");

  const int64_t full = size / group_size;
  const FourBitRow& row = FastestFourBitRow();
  const int64_t done =
      EncodeGroups(row, dtype, values, full, group_size, RuleOf(matrix_.format),
                   matrix_.absmax.data() + offset / group_size, matrix_.codes.data() + offset / 2);
  if (done < full) return NotFinite(dtype, values, done * group_size, offset);

  alignas(64) std::array<float, kLargestGroup> group;
  for (int64_t begin = 0; form_.scale_search && begin < full * group_size; begin += group_size) {
    const auto wide = std::span(group).first(static_cast<size_t>(group_size));
    Widen(dtype, values, begin, wide);
    SearchScale(row, wide, matrix_.format,
                &matrix_.absmax[static_cast<size_t>((offset + begin) / group_size)],
                matrix_.codes.data() + (offset + begin) / 2);
  }
  if (full * group_size == size) return absl::OkStatus();
  const auto rest = std::span(group).first(static_cast<size_t>(size - full * group_size));
  Widen(dtype, values, full * group_size, rest);
  if (!AddShortGroup(rest)) return NotFinite(dtype, values, full * group_size, offset);
  return absl::OkStatus();
}

bool FourBitQuantizer::AddShortGroup(std::span<const float> values) {
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(values.begin(), values.end(), finite)) return false;
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  const float divisor = std::max(largest, kSmallestDivisor);
  uint8_t* packed = matrix_.codes.data() + (matrix_.NumGroups() - 1) * matrix_.group_size / 2;
  EncodeDivided(values, divisor, RuleOf(matrix_.format), packed);
  // bitsandbytes stores the clamped scale, we a zero as it is.
  matrix_.absmax.back() = largest > 0 ? divisor : 0.0f;
  return true;
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

void DequantizeFourBit(const FourBitMatrix& matrix, int64_t offset, std::span<float> values) {
  const auto end = offset + static_cast<int64_t>(values.size());
  Require(offset >= 0 && end <= matrix.NumValues(), "a slice lies in its matrix");
  const FourBitRow& row = FastestFourBitRow();
  float* out = values.data();
  for (int64_t i = offset; i < end;) {
    const int64_t group = i / matrix.group_size;
    const int64_t group_end = std::min(end, (group + 1) * matrix.group_size);
    const std::array<float, 16> table = ScaledCodebook(matrix, group);
    if (i % 2 == 0) {
      const int64_t count = (group_end - i) / kRowStep * kRowStep;
      row.decode(matrix.codes.data() + i / 2, count, table.data(), out);
      i += count;
      out += count;
    }
    for (; i < group_end; ++i) {
      const uint8_t pair = matrix.codes[static_cast<size_t>(i / 2)];
      *out++ = table[i % 2 == 0 ? pair >> 4 : pair & 15];
    }
  }
}

}  // namespace nibble
