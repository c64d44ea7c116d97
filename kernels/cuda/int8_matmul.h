// Products with INT8 weights as kernels/backend.h defines them, in three launches: rows of x in 8
// bits, integer sums (ours, or cuBLAS'), and what is no integer. Every rounding is the definition's
// own, so results are equal to the CPU backend's bit for bit, whatever the number of rows.
#pragma once

#include <cstdint>

#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

// Rows of x in 8 bits. Plain data without padding.
struct Int8Rows {
  int8_t* codes;       // [rows, stride], zeros at outliers and past K
  uint32_t* outliers;  // [rows, masks]: bit k % 32 of word k / 32
  float* stats;        // [rows]
  int32_t* counts;     // [rows]: how many outliers
  int64_t rows;
  int64_t k;
  int64_t stride;  // Int8Stride(k)
  int64_t masks;   // words of a row

  Int8Rows Some(int64_t first, int64_t count) const {
    return {codes + first * stride,
            outliers + first * masks,
            stats + first,
            counts + first,
            count,
            k,
            stride,
            masks};
  }
};

constexpr int64_t Int8Masks(int64_t k) { return RoundUp((k + 31) / 32, 4); }
// Memory of such rows, 256-aligned: codes, outliers, stats, counts.
int64_t Int8RowsBytes(int64_t rows, int64_t k);
Int8Rows PlaceInt8Rows(char* memory, int64_t rows, int64_t k);

// threshold: WeightSpec::outlier_threshold.
void PrepareInt8(Tape* tape, const Activations& x, float threshold, const Int8Rows& out);

// sums[m, n] = Σ_k rows.codes[m,k] · codes[n,k]: [rows.rows, n] with sums_stride. codes: rows of
// Int8Stride(k).
void Int8Sums(Tape* tape, const Int8Rows& rows, const void* codes, int64_t n, int32_t* sums,
              int64_t sums_stride);

// part.out[m,n] (+)= what the definition makes of sums. sums may lie in out itself when not
// accumulating. x: the rows that PrepareInt8 took.
void FinishInt8(Tape* tape, const Activations& x, const Int8Rows& rows, const DensePart& part,
                const int32_t* sums, int64_t sums_stride);

}  // namespace nibble::cuda
