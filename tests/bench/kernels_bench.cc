// How fast the CPU backend's products are, as ratios of what this machine does in the same run:
// bytes per second against a plain read of memory, FLOP/s against FMAs that stay in registers.
// NIBBLE_BENCH_ISA, NIBBLE_BENCH_COMPUTE, NIBBLE_BENCH_THREADS and NIBBLE_BENCH_ONLY (part of a
// line's name) narrow it. Usage: kernels_bench [repetitions, 200 by default]; every figure is the
// best of them, each about a millisecond, so that a busy machine is caught in a quiet moment.
#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

namespace nibble {
namespace {

int repetitions = 200;
clockid_t clock_id = CLOCK_MONOTONIC;  // one thread: its CPU time, so that neighbours do not count

double Now() {
  timespec now;
  clock_gettime(clock_id, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Seconds of the fastest of several runs of f.
template <typename F>
double Best(F f) {
  double best = 1e30;
  for (int i = 0; i < repetitions; ++i) {
    const double start = Now();
    f();
    best = std::min(best, Now() - start);
  }
  return best;
}

typedef uint64_t Words __attribute__((vector_size(64)));

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t ReadAll(const char* data,
                                                                              int64_t bytes) {
  Words sum[4] = {};
  for (int64_t i = 0; i < bytes; i += 256) {
    for (int j = 0; j < 4; ++j) sum[j] ^= *reinterpret_cast<const Words*>(data + i + 64 * j);
  }
  const Words all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
  return all[0] ^ all[3] ^ all[7];
}

// 12 chains of fused multiply-adds that never leave their registers.
__attribute__((target("avx512f"))) float FmaChains512(int64_t count) {
  __m512 a[12];
  for (int i = 0; i < 12; ++i) a[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (int64_t n = 0; n < count; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) a[i] = _mm512_fmadd_ps(a[i], x, y);
  }
  __m512 sum = a[0];
  for (int i = 1; i < 12; ++i) sum = _mm512_add_ps(sum, a[i]);
  return _mm512_cvtss_f32(sum);
}

__attribute__((target("avx2,fma"))) float FmaChains256(int64_t count) {
  __m256 a[12];
  for (int i = 0; i < 12; ++i) a[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (int64_t n = 0; n < count; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) a[i] = _mm256_fmadd_ps(a[i], x, y);
  }
  __m256 sum = a[0];
  for (int i = 1; i < 12; ++i) sum = _mm256_add_ps(sum, a[i]);
  return _mm256_cvtss_f32(sum);
}

// 12 chains of four products of bytes a lane that never leave their registers.
__attribute__((target("avx512f,avx512vnni"))) uint64_t ByteChains512(int64_t count) {
  __m512i a[12];
  for (int i = 0; i < 12; ++i) a[i] = _mm512_set1_epi32(i);
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1);
  for (int64_t n = 0; n < count; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) a[i] = _mm512_dpbusd_epi32(a[i], x, y);
  }
  __m512i sum = a[0];
  for (int i = 1; i < 12; ++i) sum = _mm512_add_epi32(sum, a[i]);
  uint64_t lanes[8];
  _mm512_storeu_si512(lanes, sum);
  return lanes[0];
}

volatile float float_sink;
volatile uint64_t word_sink;

double ReadBandwidth(Backend& backend, ThreadPool& pool) {
  const int64_t slice = int64_t{64} << 20, slices = 8, units = 64;
  const Buffer memory = std::move(*backend.Allocate(slices * slice));
  int64_t turn = 0;
  const double seconds = Best([&] {
    const char* data = memory.data() + turn++ % slices * slice;
    pool.Run(units, [&](int64_t unit, int) {
      word_sink = ReadAll(data + unit * (slice / units), slice / units);
    });
  });
  return static_cast<double>(slice) / seconds;
}

double PeakFlops(ThreadPool& pool) {
  const int64_t count = 200'000;
  const bool wide = __builtin_cpu_supports("avx512f");
  const int threads = pool.num_threads();
  const double seconds = Best([&] {
    pool.Run(threads,
             [&](int64_t, int) { float_sink = wide ? FmaChains512(count) : FmaChains256(count); });
  });
  return static_cast<double>(count) * 12 * (wide ? 16 : 8) * 2 * threads / seconds;
}

// Of bytes, two operations a product; 0 where the CPU has no VNNI of 512 bits.
double PeakByteOperations(ThreadPool& pool) {
  if (!__builtin_cpu_supports("avx512vnni")) return 0;
  const int64_t count = 200'000;
  const int threads = pool.num_threads();
  const double seconds =
      Best([&] { pool.Run(threads, [&](int64_t, int) { word_sink = ByteChains512(count); }); });
  return static_cast<double>(count) * 12 * 64 * 2 * threads / seconds;
}

// Some copies of one matrix, more than the caches hold if `bytes` says so.
class Copies {
 public:
  Copies(Backend& backend, const WeightSpec& spec, int64_t bytes)
      : size_(backend.PackedBytes(spec)),
        count_(std::max<int64_t>(1, bytes / size_.Total())),
        codes_(std::move(*backend.Allocate(count_ * Padded(size_.codes)))),
        scales_(std::move(*backend.Allocate(count_ * Padded(size_.scales)))),
        nested_(std::move(*backend.Allocate(count_ * Padded(size_.nested)))),
        tables_(std::move(*backend.Allocate(Padded(size_.tables)))),
        spec_(spec) {
    uint32_t random = 1;
    for (int64_t i = 0; i + 4 <= codes_.bytes(); i += 4) {
      random = random * 1664525u + 1013904223u;
      *reinterpret_cast<uint32_t*>(codes_.data() + i) = random & 0x3bff3bffu;  // finite as halves
    }
  }
  Weight At(int64_t i) const {
    i %= count_;
    return {spec_, codes_.data() + i * Padded(size_.codes),
            scales_.data() + i * Padded(size_.scales), nested_.data() + i * Padded(size_.nested),
            tables_.data()};
  }
  int64_t count() const { return count_; }
  int64_t bytes() const { return size_.Total(); }

 private:
  static int64_t Padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  PackedSize size_;
  int64_t count_;
  Buffer codes_, scales_, nested_, tables_;
  WeightSpec spec_;
};

struct Machine {
  double read_bytes = 0;
  double peak_flops = 0;
};

void Report(const std::string& name, int64_t m, const WeightSpec& spec, int64_t bytes,
            double seconds, const Machine& machine) {
  const double weights = static_cast<double>(spec.n * spec.k);
  const double flops = 2 * weights * static_cast<double>(m) / seconds;
  std::printf(
      "%-28s M=%-4lld %9.1f us  %7.1f Gw/s  %6.1f GB/s (%.2f of read)  %7.1f GFLOP/s"
      " (%.2f of peak)\n",
      name.c_str(), static_cast<long long>(m), seconds * 1e6, weights / seconds / 1e9,
      static_cast<double>(bytes) / seconds / 1e9,
      static_cast<double>(bytes) / seconds / machine.read_bytes, flops / 1e9,
      flops / machine.peak_flops);
}

bool IsWanted(const std::string& name) {
  const char* only = std::getenv("NIBBLE_BENCH_ONLY");
  return only == nullptr || name.find(only) != std::string::npos;
}

// The first `outliers` elements of each row of x are large ones.
void BenchMatMul(Backend& backend, const std::string& name, const WeightSpec& spec, int64_t m,
                 int64_t copies_bytes, const Machine& machine, int64_t outliers = 0) {
  if (!IsWanted(name + " M=" + std::to_string(m))) return;
  const Copies copies(backend, spec, copies_bytes);
  std::vector<float> x(static_cast<size_t>(m * spec.k), 0.5f);
  for (int64_t row = 0; row < m; ++row) std::fill_n(x.begin() + row * spec.k, outliers, 10.0f);
  std::vector<float> out(static_cast<size_t>(m * spec.n));
  const double flops = 2.0 * static_cast<double>(m * spec.n * spec.k);
  const int64_t products = static_cast<int64_t>(5e-4 * machine.peak_flops / flops) + 1;
  int64_t turn = 0;
  const double seconds = Best([&] {
    for (int64_t i = 0; i < products; ++i) {
      const Weight weight = copies.At(turn++);
      const MatMulPart part = {&weight, {}, {out.data(), m, spec.n, spec.n}, false};
      backend.MatMul({x.data(), m, spec.k, spec.k}, {&part, 1});
    }
  });
  Report(name, m, spec, copies.bytes(), seconds / static_cast<double>(products), machine);
}

void BenchShapes(Backend& backend, const Machine& machine) {
  constexpr int64_t kDram = int64_t{256} << 20;
  const auto nf4 = [](int64_t n, int64_t k, bool double_quant) {
    return WeightSpec{WeightFormat::kNf4, n, k, 64, double_quant};
  };
  for (const bool dq : {false, true}) {
    for (const int64_t m : {1, 8, 32, 512}) {
      BenchMatMul(backend, dq ? "NF4+DQ 4096x4096" : "NF4 4096x4096", nf4(4096, 4096, dq), m,
                  m == 512 ? 0 : kDram, machine);
    }
  }
  BenchMatMul(backend, "NF4+DQ 14336x4096", nf4(14336, 4096, true), 1, kDram, machine);
  BenchMatMul(backend, "NF4+DQ 512x1024 in L2", nf4(512, 1024, true), 1, 0, machine);
  const int64_t small[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
  for (const auto& [n, k] : small) {
    for (const int64_t m : {1, 8, 32, 512}) {
      BenchMatMul(backend, "NF4+DQ " + std::to_string(n) + "x" + std::to_string(k), nf4(n, k, true),
                  m, 0, machine);
    }
  }
  BenchMatMul(backend, "NF4+DQ 960x200 straddling", nf4(960, 200, true), 1, 0, machine);
  BenchMatMul(backend, "NF4+DQ 960x200 straddling", nf4(960, 200, true), 32, 0, machine);
  for (const int64_t m : {1, 8, 32}) {
    BenchMatMul(backend, "fp16 49152x576", {WeightFormat::kF16, 49152, 576, 64, false}, m, kDram,
                machine);
  }
}

// LLM.int8(), FP4 and tables of a matrix's own, beside the NF4 of the same shape above.
void BenchOtherFormats(Backend& backend, const Machine& machine) {
  constexpr int64_t kDram = int64_t{256} << 20;
  const WeightSpec int8 = {.format = WeightFormat::kInt8, .n = 4096, .k = 4096};
  for (const int64_t m : {1, 2, 4, 8, 32, 512}) {
    BenchMatMul(backend, "INT8 4096x4096", int8, m, m == 512 ? 0 : kDram, machine);
  }
  for (const int64_t m : {1, 8, 512}) {
    BenchMatMul(backend, "INT8 4096x4096, 6 outliers", int8, m, m == 512 ? 0 : kDram, machine, 6);
  }
  const int64_t small[][2] = {{576, 576}, {1536, 576}, {576, 1536}};
  for (const auto& [n, k] : small) {
    for (const int64_t m : {1, 8, 32, 512}) {
      BenchMatMul(backend, "INT8 " + std::to_string(n) + "x" + std::to_string(k),
                  {.format = WeightFormat::kInt8, .n = n, .k = k}, m, 0, machine);
    }
  }
  for (const bool own_tables : {false, true}) {
    const WeightSpec fp4 = {WeightFormat::kFp4, 4096, 4096, 64, true, own_tables};
    for (const int64_t m : {1, 8, 512}) {
      BenchMatMul(backend, own_tables ? "FP4+DQ 4096x4096 own tables" : "FP4+DQ 4096x4096", fp4, m,
                  m == 512 ? 0 : kDram, machine);
    }
  }
}

// fp32 rows into INT8, all threads.
void BenchQuantizeInt8(Backend& backend, ThreadPool& pool, const Machine& machine) {
  const std::string name = "quantize INT8 from fp32";
  if (!IsWanted(name)) return;
  constexpr int64_t kRows = 8192, kColumns = 4096, kRowsOfUnit = 32;
  const Buffer memory = std::move(*backend.Allocate(kRows * kColumns * 4));
  float* values = reinterpret_cast<float*>(memory.data());
  for (int64_t i = 0; i < kRows * kColumns; ++i) values[i] = static_cast<float>(i % 1013 - 506);
  Int8Matrix matrix = MakeInt8Matrix(kRows, kColumns);
  const double seconds = Best([&] {
    pool.Run(kRows / kRowsOfUnit, [&](int64_t unit, int) {
      const int64_t row = unit * kRowsOfUnit;
      const std::span<const float> rows(values + row * kColumns, kRowsOfUnit * kColumns);
      if (!QuantizeInt8(row, rows, &matrix).ok()) std::abort();
    });
  });
  const double bytes = static_cast<double>(kRows * kColumns) * 4 / seconds;
  std::printf("%-28s %.1f GB/s read (%.2f of read)\n", name.c_str(), bytes / 1e9,
              bytes / machine.read_bytes);
}

int Main(int argc, char** argv) {
  if (argc > 1) repetitions = std::max(1, std::atoi(argv[1]));
  BackendOptions options;
  if (const char* isa = std::getenv("NIBBLE_BENCH_ISA")) options.cpu_isa = isa;
  if (const char* threads = std::getenv("NIBBLE_BENCH_THREADS")) {
    options.num_threads = std::atoi(threads);
  }
  if (const char* compute = std::getenv("NIBBLE_BENCH_COMPUTE")) {
    options.compute = ComputeNamed(compute).value_or(Compute::kAuto);
  }
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    return 1;
  }
  if ((*backend)->num_threads() == 1) clock_id = CLOCK_THREAD_CPUTIME_ID;
  ThreadPool pool((*backend)->num_threads());
  const Machine machine = {ReadBandwidth(**backend, pool), PeakFlops(pool)};
  std::printf(
      "%s, compute=%s, %d threads: read %.1f GB/s, fp32 FMA in registers %.1f GFLOP/s, bytes "
      "%.1f GOP/s\n",
      (*backend)->isa().c_str(), Name((*backend)->compute()), (*backend)->num_threads(),
      machine.read_bytes / 1e9, machine.peak_flops / 1e9, PeakByteOperations(pool) / 1e9);
  const BackendLimits limits = {.max_rows = 512, .max_k = 4096};
  const Buffer scratch = std::move(*(*backend)->Allocate((*backend)->ScratchBytes(limits)));
  (*backend)->UseScratch(scratch.data(), scratch.bytes(), limits);
  BenchShapes(**backend, machine);
  BenchOtherFormats(**backend, machine);
  BenchQuantizeInt8(**backend, pool, machine);
  return 0;
}

}  // namespace
}  // namespace nibble

// Not on the main thread, which the pool does not pin.
int main(int argc, char** argv) {
  int result = 0;
  std::thread([&] { result = nibble::Main(argc, argv); }).join();
  return result;
}
