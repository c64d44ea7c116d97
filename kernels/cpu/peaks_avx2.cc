// What AVX2 can do at most. Compiled for that ISA alone, so it includes nothing that could leave a
// shared inline function behind.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/peak_loops.h"
#include "kernels/cpu/peak_loops.inl"

namespace nibble {
namespace {

struct FmaSum {
  __m256 v;
  static FmaSum Start(int i) { return {_mm256_set1_ps(static_cast<float>(i))}; }
  FmaSum Step() const {
    return {_mm256_fmadd_ps(v, _mm256_set1_ps(0.999f), _mm256_set1_ps(0.001f))};
  }
  int32_t Bits() const { return _mm256_extract_epi32(_mm256_castps_si256(v), 0); }
};

// The products of bytes have to go through 16 bits; made anew each time, as a kernel must.
struct MaddSum {
  __m256i v;
  static MaddSum Start(int i) { return {_mm256_set1_epi32(i)}; }
  MaddSum Step() const {
    const __m256i pairs = _mm256_maddubs_epi16(v, _mm256_set1_epi8(2));
    return {_mm256_add_epi32(v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
  }
  int32_t Bits() const { return _mm256_extract_epi32(v, 0); }
};

}  // namespace

int32_t FmaPeakAvx2(int64_t steps) { return RunPeak<FmaSum, kPeakSums>(steps); }
int32_t MaddPeakAvx2(int64_t steps) { return RunPeak<MaddSum, kPeakSums>(steps); }

// Two streams, which keeps more lines under way than one.
int32_t ReadAvx2(const char* data, int64_t bytes) {
  const int64_t half = bytes / 2;
  __m256i sums[4] = {};
  for (int64_t i = 0; i < half; i += 64) {
    for (int64_t j = 0; j < 4; ++j) {
      const char* line = data + j / 2 * half + i + j % 2 * 32;
      sums[j] =
          _mm256_xor_si256(sums[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(line)));
    }
  }
  return _mm256_movemask_epi8(
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3])));
}

}  // namespace nibble
