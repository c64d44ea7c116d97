// What AVX-512 F and BW can do at most. Compiled for that ISA alone, like peaks_avx2.cc.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/peak_loops.h"
#include "kernels/cpu/peak_loops.inl"

namespace nibble {
namespace {

struct FmaSum {
  __m512 v;
  static FmaSum Start(int i) { return {_mm512_set1_ps(static_cast<float>(i))}; }
  FmaSum Step() const {
    return {_mm512_fmadd_ps(v, _mm512_set1_ps(0.999f), _mm512_set1_ps(0.001f))};
  }
  int32_t Bits() const { return _mm512_cvtsi512_si32(_mm512_castps_si512(v)); }
};

struct MaddSum {
  __m512i v;
  static MaddSum Start(int i) { return {_mm512_set1_epi32(i)}; }
  MaddSum Step() const {
    const __m512i pairs = _mm512_maddubs_epi16(v, _mm512_set1_epi8(2));
    return {_mm512_add_epi32(v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
  }
  int32_t Bits() const { return _mm512_cvtsi512_si32(v); }
};

}  // namespace

int32_t FmaPeakAvx512(int64_t steps) { return RunPeak<FmaSum, kWidePeakSums>(steps); }
int32_t MaddPeakAvx512(int64_t steps) { return RunPeak<MaddSum, kWidePeakSums>(steps); }

int32_t ReadAvx512(const char* data, int64_t bytes) {
  const int64_t half = bytes / 2;
  __m512i first = _mm512_setzero_si512(), second = first;
  for (int64_t i = 0; i < half; i += 64) {
    first = _mm512_xor_si512(first, _mm512_load_si512(data + i));
    second = _mm512_xor_si512(second, _mm512_load_si512(data + half + i));
  }
  return _mm512_cvtsi512_si32(_mm512_xor_si512(first, second));
}

}  // namespace nibble
