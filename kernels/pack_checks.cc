// Shapes and lengths; looks at no value but own tables.
#include "kernels/pack_checks.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool HasLength(size_t length, int64_t wanted) { return static_cast<int64_t>(length) == wanted; }

bool HasLengths(const FourBitMatrix& matrix) {
  const int64_t groups = matrix.NumGroups();
  return HasLength(matrix.codes.size(), CeilDiv(matrix.NumValues(), 2)) &&
         (matrix.double_quant
              ? HasLength(matrix.absmax_codes.size(), groups) &&
                    HasLength(matrix.nested_absmax.size(), CeilDiv(groups, kNestedGroup))
              : HasLength(matrix.absmax.size(), groups));
}

}  // namespace

absl::Status CheckPackFourBit(const FourBitMatrix& matrix, const WeightSpec& spec) {
  if (spec.format != matrix.format || matrix.n != spec.n || matrix.k != spec.k ||
      matrix.group_size != spec.group_size || matrix.double_quant != spec.double_quant) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pack: got ", Name(matrix.format), " [", matrix.n, ",", matrix.k, "] with groups of ",
        matrix.group_size, matrix.double_quant ? ", double quantized" : "", "; want ",
        Name(spec.format), " [", spec.n, ",", spec.k, "] with groups of ", spec.group_size,
        spec.double_quant ? ", double quantized" : ""));
  }
  if (!HasLengths(matrix)) {
    return absl::InvalidArgumentError(absl::StrCat("pack: got arrays of wrong lengths for ",
                                                   Name(spec.format), " [", spec.n, ",", spec.k,
                                                   "] with groups of ", spec.group_size));
  }
  if (NeedsOwnTables(matrix) && !spec.own_tables) {
    return absl::InvalidArgumentError(
        absl::StrCat("pack: got a ", Name(spec.format),
                     " matrix with a codebook or nested map of its own, want the format's: its "
                     "weight has no room for tables"));
  }
  return absl::OkStatus();
}

absl::Status CheckPackInt8(const Int8Matrix& matrix, const WeightSpec& spec) {
  if (spec.format != WeightFormat::kInt8 || matrix.n != spec.n || matrix.k != spec.k ||
      !HasLength(matrix.codes.size(), matrix.n * matrix.k) ||
      !HasLength(matrix.absmax.size(), matrix.n)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pack: got int8 [", matrix.n, ",", matrix.k, "] of ", matrix.codes.size(), " codes and ",
        matrix.absmax.size(), " scales; want ", Name(spec.format), " [", spec.n, ",", spec.k, "]"));
  }
  if (spec.k > kMaxInt8Columns) {
    return absl::InvalidArgumentError(absl::StrCat("pack: got int8 [", spec.n, ",", spec.k,
                                                   "], want at most ", kMaxInt8Columns,
                                                   " columns, whose sums fit 32 bits"));
  }
  return absl::OkStatus();
}

absl::Status CheckPack16(int64_t first_row, int64_t count, const WeightSpec& spec) {
  if (IsSixteenBit(spec.format) && first_row >= 0 && count >= 0 && first_row <= spec.n - count) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("pack: got 16-bit rows ", first_row, " … ", first_row + count - 1,
                   "; want rows of ", Name(spec.format), " [", spec.n, ",", spec.k, "]"));
}

}  // namespace nibble
