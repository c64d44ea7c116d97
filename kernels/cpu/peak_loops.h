// Loops that show the most a CPU can do, one for each unit; peaks.cc knows which may be called
// here. Each multiplies registers only, `steps` times kPeakSums (AMX: kTileSums) instructions, or
// reads memory once; the result is there so that no compiler drops the work.
#pragma once

#include <stdint.h>

namespace nibble {

// Independent sums: enough to hide the latency of two instructions a cycle.
constexpr int64_t kPeakSums = 12, kWidePeakSums = 14, kTileSums = 4;

int32_t FmaPeakAvx2(int64_t steps);
int32_t MaddPeakAvx2(int64_t steps);  // vpmaddubsw, vpmaddwd, vpaddd
int32_t VnniPeakAvx2(int64_t steps);
int32_t FmaPeakAvx512(int64_t steps);
int32_t MaddPeakAvx512(int64_t steps);
int32_t VnniPeakAvx512(int64_t steps);
int32_t Bf16PeakAvx512(int64_t steps);
int32_t Bf16PeakAmx(int64_t steps);
int32_t Int8PeakAmx(int64_t steps);

// bytes % 512 == 0, data 64-aligned.
int32_t ReadAvx2(const char* data, int64_t bytes);
int32_t ReadAvx512(const char* data, int64_t bytes);

}  // namespace nibble
