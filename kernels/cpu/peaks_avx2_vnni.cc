// What AVX-VNNI can do at most. Compiled for that ISA alone, like peaks_avx2.cc.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/peak_loops.h"
#include "kernels/cpu/peak_loops.inl"

namespace nibble {
namespace {

struct VnniSum {
  __m256i v;
  static VnniSum Start(int i) { return {_mm256_set1_epi32(i)}; }
  VnniSum Step() const {
    return {_mm256_dpbusd_avx_epi32(v, _mm256_set1_epi8(1), _mm256_set1_epi8(2))};
  }
  int32_t Bits() const { return _mm256_extract_epi32(v, 0); }
};

}  // namespace

int32_t VnniPeakAvx2(int64_t steps) { return RunPeak<VnniSum, kPeakSums>(steps); }

}  // namespace nibble
