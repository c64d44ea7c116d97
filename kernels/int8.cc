// See the header.
#include "kernels/int8.h"

namespace nibble {

Int8Matrix MakeInt8Matrix(int64_t n, int64_t k) {
  Int8Matrix matrix{n, k, {}, {}};
  matrix.codes.resize(static_cast<size_t>(n * k));
  matrix.absmax.resize(static_cast<size_t>(n));
  return matrix;
}

absl::Status QuantizeInt8(int64_t, std::span<const float>, Int8Matrix*) {
  return absl::UnimplementedError("INT8");
}

void DequantizeInt8(const Int8Matrix&, int64_t, std::span<float>) {}

}  // namespace nibble
