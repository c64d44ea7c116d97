// Asks the CPU which loops it can run, and runs them on a pool of threads.
#include "kernels/peaks.h"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/peak_loops.h"
#include "kernels/cpu/thread_pool.h"

namespace nibble {
namespace {

constexpr int64_t kReadPart = 64 << 10;

// The row that multiplies on tiles is there where the CPU has them and Linux grants them.
bool MayUseTiles() {
  const std::vector<const IsaTable*> rows = SupportedIsas();
  return std::count(rows.begin(), rows.end(), &kAmxTable) > 0;
}

double Operations(int64_t sums, int64_t products) {
  return static_cast<double>(2 * sums * products);
}

std::atomic<int32_t> sink;  // what loops return is used

}  // namespace

std::vector<CpuUnit> CpuUnits() {
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool wide = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  const bool tiles = MayUseTiles();
  const int64_t narrow_sums = kPeakSums, wide_sums = kWidePeakSums, tile = 16 * 16;
  return {
      {"fma_256", "fp32 FMA, 256 bits", fma, Operations(narrow_sums, 8), FmaPeakAvx2},
      {"madd_256", "vpmaddubsw + vpmaddwd, 256 bits", fma, Operations(narrow_sums, 32),
       MaddPeakAvx2},
      {"vnni_256", "vpdpbusd, 256 bits", fma && __builtin_cpu_supports("avxvnni"),
       Operations(narrow_sums, 32), VnniPeakAvx2},
      {"fma_512", "fp32 FMA, 512 bits", wide, Operations(wide_sums, 16), FmaPeakAvx512},
      {"madd_512", "vpmaddubsw + vpmaddwd, 512 bits", wide, Operations(wide_sums, 64),
       MaddPeakAvx512},
      {"vnni_512", "vpdpbusd, 512 bits", wide && __builtin_cpu_supports("avx512vnni"),
       Operations(wide_sums, 64), VnniPeakAvx512},
      {"dpbf16_512", "vdpbf16ps, 512 bits", wide && __builtin_cpu_supports("avx512bf16"),
       Operations(wide_sums, 32), Bf16PeakAvx512},
      {"amx_bf16", "tdpbf16ps", tiles, Operations(kTileSums, tile * 32), Bf16PeakAmx},
      {"amx_int8", "tdpbusd", tiles, Operations(kTileSums, tile * 64), Int8PeakAmx},
  };
}

std::string_view UnitOf(const std::string& isa, Compute compute) {
  const bool amx = absl::StrContains(isa, "amx");
  const bool wide = amx || absl::StrContains(isa, "avx512");
  if (!wide && !absl::StrContains(isa, "avx2")) return "";
  const bool bf16 = absl::StrContains(isa, "bf16");
  if (compute == Compute::kBf16 && amx) return "amx_bf16";
  if (compute == Compute::kBf16 && bf16) return "dpbf16_512";
  if (compute != Compute::kInt8) return wide ? "fma_512" : "fma_256";
  if (amx) return "amx_int8";
  const bool vnni = bf16 || absl::StrContains(isa, "vnni");
  if (wide) return vnni ? "vnni_512" : "madd_512";
  return vnni ? "vnni_256" : "madd_256";
}

std::string CpuName() {
  std::array<unsigned, 12> brand = {};
  unsigned a = 0, b = 0, c = 0, d = 0;
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* part = &brand[4 * i];
    __get_cpuid(0x80000002 + i, part, part + 1, part + 2, part + 3);
  }
  std::array<char, sizeof(brand) + 1> text = {};
  std::memcpy(text.data(), brand.data(), sizeof(brand));
  __get_cpuid(0, &a, &b, &c, &d);
  const std::array<unsigned, 3> vendor = {b, d, c};
  __get_cpuid(1, &a, &b, &c, &d);
  const unsigned base = a >> 8 & 15, extended = a >> 20 & 255;
  const unsigned model = (a >> 4 & 15) | (a >> 12 & 0xf0);
  return absl::StrCat(std::string(absl::StripAsciiWhitespace(std::string(text.data()))), " (",
                      std::string(reinterpret_cast<const char*>(vendor.data()), sizeof(vendor)),
                      ", family ", base == 15 ? base + extended : base, ", model ", model, ")");
}

std::vector<std::string> CpuIsaNames() {
  std::vector<std::string> names;
  for (const IsaTable* table : SupportedIsas()) names.emplace_back(table->name);
  return names;
}

CpuCaches ReadCpuCaches() {
  CpuCaches caches = {1 << 20, 32 << 20};
  for (int index = 0;; ++index) {
    const std::string folder = absl::StrCat("/sys/devices/system/cpu/cpu0/cache/index", index, "/");
    int level = 0;
    int64_t kib = 0;
    if (!(std::ifstream(folder + "level") >> level)) return caches;
    if (!(std::ifstream(folder + "size") >> kib)) continue;  // "32768K"
    if (level == 2) caches.l2 = kib << 10;
    if (level >= 2) caches.last = kib << 10;
  }
}

class CpuPeaks::Threads {
 public:
  explicit Threads(int num_threads) : pool(num_threads), isa(*SupportedIsas().back()) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
      read = ReadAvx512;
    } else if (__builtin_cpu_supports("avx2")) {
      read = ReadAvx2;
    }
  }

  // For a CPU without AVX2.
  static int32_t ReadWords(const char* data, int64_t bytes) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < bytes; i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, data + i, sizeof(word));
      sum ^= word;
    }
    return static_cast<int32_t>(sum);
  }

  ThreadPool pool;
  const IsaTable& isa;
  int32_t (*read)(const char*, int64_t) = ReadWords;
};

CpuPeaks::CpuPeaks(int num_threads) : threads_(std::make_unique<Threads>(num_threads)) {}
CpuPeaks::~CpuPeaks() = default;

void CpuPeaks::Multiply(const CpuUnit& unit, int64_t steps) {
  threads_->pool.Run(threads_->pool.num_threads(),
                     [&](int64_t, int) { sink.store(unit.run(steps), std::memory_order_relaxed); });
}

void CpuPeaks::Read(const char* data, int64_t bytes) {
  threads_->pool.Run(bytes / kReadPart, [&](int64_t part, int) {
    sink.store(threads_->read(data + part * kReadPart, kReadPart), std::memory_order_relaxed);
  });
}

void CpuPeaks::DequantizeToBf16(const FourBitMatrix& matrix, uint16_t* values) {
  constexpr int64_t kSlice = 4096;  // in fp32 it stays in L1
  const int64_t count = matrix.NumValues();
  threads_->pool.Run(CeilDiv(count, kSlice), [&](int64_t slice, int) {
    std::array<float, kSlice> exact;
    const int64_t first = slice * kSlice, size = std::min(kSlice, count - first);
    DequantizeFourBit(matrix, first, {exact.data(), static_cast<size_t>(size)});
    threads_->isa.store(exact.data(), size, kLaneBF16, values + first);
  });
}

void CpuPeaks::Run(int64_t num_units, const std::function<void(int64_t unit)>& f) {
  threads_->pool.Run(num_units, [&](int64_t unit, int) { f(unit); });
}

void CpuPeaks::Park() { threads_->pool.Park(); }

}  // namespace nibble
