// Plain loops over the definition.
#include "kernels/reference/int8.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/half.h"
#include "kernels/reference/values.h"
#include "kernels/reference/weights.h"

namespace nibble::reference {
namespace {

float Rounded(float x) {
  const float half = F16ToF32(F32ToF16(x));
  return std::isfinite(half) ? half : x;
}

// Everything but the old value of out[n].
double Product(const Int8Row& row, const Int8Matrix& matrix, int64_t n) {
  const int8_t* codes = matrix.codes.data() + n * matrix.k;
  const auto absmax = static_cast<double>(matrix.absmax[static_cast<size_t>(n)]);
  int64_t sum = 0;
  double others = 0;
  for (size_t k = 0; k < row.codes.size(); ++k) {
    sum += int64_t{row.codes[k]} * codes[k];
    if (!row.is_outlier[k]) continue;
    others += static_cast<double>(row.outliers[k]) * (codes[k] * absmax / 127);
  }
  return static_cast<double>(sum) * static_cast<double>(row.stat) * absmax / (127 * 127) + others;
}

}  // namespace

Int8Row TakeApart(std::span<const float> x, float threshold) {
  const float limit = threshold > 0 ? threshold : std::numeric_limits<float>::infinity();
  Int8Row row;
  for (const float value : x) {
    const float a = Rounded(value);
    const bool inside = std::abs(a) < limit;
    row.is_outlier.push_back(!inside);
    row.outliers.push_back(inside ? 0.0f : a);
    if (inside) row.stat = std::max(row.stat, std::abs(a));
  }
  for (size_t k = 0; k < x.size(); ++k) {
    const bool is_zero = row.is_outlier[k] || row.stat == 0;
    const float code = is_zero ? 0.0f : std::nearbyint(Rounded(x[k]) * (127.0f / row.stat));
    row.codes.push_back(static_cast<int32_t>(code));
  }
  return row;
}

void MatMulInt8(const Activations& x, const MatMulPart& part) {
  const Int8Matrix matrix = UnpackInt8(*part.weight);
  for (int64_t m = 0; m < x.rows; ++m) {
    const Int8Row row =
        TakeApart({x.Row(m), static_cast<size_t>(x.cols)}, part.weight->spec.outlier_threshold);
    for (int64_t n = 0; n < matrix.n; ++n) {
      const double bias = part.bias ? Load(part.bias, n) : 0.0;
      float* out = part.out.Row(m) + n;
      const double old = part.accumulate ? static_cast<double>(*out) : 0.0;
      *out = static_cast<float>(Product(row, matrix, n) + bias + old);
    }
  }
}

}  // namespace nibble::reference
