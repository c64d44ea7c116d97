// What AVX512_BF16 can do at most. Compiled for that ISA alone, like peaks_avx2.cc.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/peak_loops.h"
#include "kernels/cpu/peak_loops.inl"

namespace nibble {
namespace {

struct Bf16Sum {
  __m512 v;
  static Bf16Sum Start(int i) { return {_mm512_set1_ps(static_cast<float>(i))}; }
  Bf16Sum Step() const {
    const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
    return {_mm512_dpbf16_ps(v, ones, ones)};
  }
  int32_t Bits() const { return _mm512_cvtsi512_si32(_mm512_castps_si512(v)); }
};

}  // namespace

int32_t Bf16PeakAvx512(int64_t steps) { return RunPeak<Bf16Sum, kWidePeakSums>(steps); }

}  // namespace nibble
