// What AVX512_VNNI can do at most. Compiled for that ISA alone, like peaks_avx2.cc.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/peak_loops.h"
#include "kernels/cpu/peak_loops.inl"

namespace nibble {
namespace {

struct VnniSum {
  __m512i v;
  static VnniSum Start(int i) { return {_mm512_set1_epi32(i)}; }
  VnniSum Step() const {
    return {_mm512_dpbusd_epi32(v, _mm512_set1_epi8(1), _mm512_set1_epi8(2))};
  }
  int32_t Bits() const { return _mm512_cvtsi512_si32(v); }
};

}  // namespace

int32_t VnniPeakAvx512(int64_t steps) { return RunPeak<VnniSum, kWidePeakSums>(steps); }

}  // namespace nibble
