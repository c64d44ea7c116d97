// THE 4-bit formats: bitsandbytes' NF4 and FP4 with optional double quantization. The tables live
// in four_bit.cc and nowhere else. Knows nothing of files, models or devices' packed layouts.
//
//   matrix [N, K] := value[n]         flattened row-major, n = N·K
//   group         := value[group_size]
//       So groups straddle rows when K % group_size != 0, and the last group may be short.
//   codes         := byte[(n + 1) / 2], byte j = code[2j] << 4 | code[2j + 1]
//       An odd n is padded with the code of zero: 7 in NF4, 0 in FP4.
//       FP4 writes +-0 and tiny negatives as 0, tiny positives as 8, as bitsandbytes' CPU path.
//   absmax        := fp32[G], G = ceil(n / group_size), the scale of each group (its largest
//       |value|, unless it was searched for)
//   double quantization replaces absmax by
//       absmax_codes  := byte[G]
//       nested_absmax := fp32[ceil(G / 256)]
//       nested_offset := fp32
//       absmax[i] = map[absmax_codes[i]] · nested_absmax[i / 256] + nested_offset,
//       multiply and add rounded apart.
//
// Source: bitsandbytes (the CPU path, bit for bit), QLoRA (Dettmers et al. 2023).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace nibble {

inline constexpr int64_t kNestedGroup = 256;

// The 16 values a code stands for, and the 15 decision thresholds (code(x) = how many are < x).
const std::array<float, 16>& Nf4Codebook();
const std::array<float, 15>& Nf4Thresholds();
// bitsandbytes' own 4-bit float, not OCP's e2m1; bit 3 is the sign, code 8 a zero (+0).
const std::array<float, 16>& Fp4Codebook();
// Of kNf4 or kFp4.
const std::array<float, 16>& CodebookOf(WeightFormat format);
// bitsandbytes' signed dynamic 8-bit map, ascending, in its fused-multiply-add variant.
const std::array<float, 256>& DynamicMap();
// The index in DynamicMap() that value, scaled to [-1, 1], is stored as: nearest to the centre of
// its bin among 65,536, so entries nearest zero take their neighbours' codes (0 becomes 131).
uint8_t DynamicCode(float value);

bool IsAllowedGroupSize(int64_t group_size);  // 32, 64, 128 … 4096

// How a matrix is to be quantized.
struct FourBitForm {
  WeightFormat format = WeightFormat::kNf4;  // or kFp4
  int32_t group_size = 64;
  bool double_quant = true;
  // Choose each full group's scale to minimise the squared error instead of taking the largest
  // |value|: read like any other matrix, some 45 times slower to make.
  bool scale_search = false;
};

// One matrix in the checkpoint's own order. Either `absmax` or the four nested fields are filled.
struct FourBitMatrix {
  WeightFormat format = WeightFormat::kNf4;
  int64_t n = 0;  // N: rows
  int64_t k = 0;  // K: columns
  int32_t group_size = 64;
  bool double_quant = false;
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
  std::vector<uint8_t> absmax_codes;
  std::vector<float> nested_absmax;
  float nested_offset = 0;
  std::array<float, 16> codebook = Nf4Codebook();  // as stored by whoever wrote the matrix
  std::array<float, 256> nested_map{};             // likewise

  int64_t NumValues() const { return n * k; }
  int64_t NumGroups() const { return (NumValues() + group_size - 1) / group_size; }
};

// The matrix cannot do with the format's own codebook and DynamicMap() (compared bit by bit, but a
// zero's sign does not count): WeightSpec::own_tables.
bool NeedsOwnTables(const FourBitMatrix& matrix);

// Streams one matrix into 4 bits in slices, so that only a slice is ever held in fp32.
// Slices are added in order; each begins at an even flat index and at a multiple of group_size
// (any slice but the last has a length that is a multiple of both).
class FourBitQuantizer {
 public:
  // The group size must be allowed. n, k > 0.
  FourBitQuantizer(int64_t n, int64_t k, const FourBitForm& form);

  // Quantizes values[0 .. size) as flat elements [offset, offset+size). Safe to call from several
  // threads at once for different slices.
  // Errors: INVALID_ARGUMENT naming the flat index of a NaN or Inf (the slice's first).
  absl::Status Add(int64_t offset, std::span<const float> values);
  // The same for values that are bf16 or fp16: faster than to widen them first.
  absl::Status Add(int64_t offset, DType dtype, std::span<const uint16_t> values);

  // Quantizes the scales if double_quant, and gives the matrix away. Call once, after every slice.
  FourBitMatrix Finish();

 private:
  absl::Status AddSlice(int64_t offset, DType dtype, const void* values, int64_t size);
  // The matrix's last, short group. False: a NaN or Inf is in it.
  bool AddShortGroup(std::span<const float> values);

  FourBitForm form_;
  FourBitMatrix matrix_;
};

// The whole matrix at once; the same bits as the streaming form.
absl::StatusOr<FourBitMatrix> QuantizeFourBit(std::span<const float> values, int64_t n, int64_t k,
                                              const FourBitForm& form);

// Turns matrix->absmax into the four nested fields around a given offset (bitsandbytes stores its
// own, which depends on its thread count; Finish() takes fp32 of the fp64 mean).
void NestScales(float offset, FourBitMatrix* matrix);

// The fp32 scale of group i, un-nested with two roundings.
float GroupScale(const FourBitMatrix& matrix, int64_t group);

// values[i] = codebook[code] · scale for flat elements [offset, offset+values.size()).
void DequantizeFourBit(const FourBitMatrix& matrix, int64_t offset, std::span<float> values);

}  // namespace nibble
