// Quantizing to 4 bits, and back, as parts of the machine's copy bandwidth, all measured in one run
// with the same threads: quantize_bench [THREADS]. Bytes are those read and those written.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "kernels/four_bit.h"
#include "kernels/four_bit_rows.h"
#include "kernels/half.h"

namespace nibble {
namespace {

constexpr int64_t kRows = 16384;
constexpr int64_t kColumns = 16384;  // half a gigabyte in bf16: no cache holds it
constexpr int64_t kValues = kRows * kColumns;
constexpr int64_t kSlice = 65536;  // values a thread takes at a time, as the weight loader does
constexpr int kRounds = 15;

// The best of some rounds, each over all slices, dealt out to the threads.
double Seconds(int threads, const std::function<void(int64_t offset)>& slice) {
  double best = 1e30;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> workers;
    for (int worker = 0; worker < threads; ++worker) {
      workers.emplace_back([&, worker] {
        for (int64_t at = worker * kSlice; at < kValues; at += threads * kSlice) slice(at);
      });
    }
    for (std::thread& worker : workers) worker.join();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count());
  }
  return best;
}

void Print(const char* what, double seconds, double bytes, double copy) {
  const double speed = bytes / seconds / 1e9;
  std::printf("%-34s %7.2f GB/s %7.2f Gvalues/s  %5.2f of copy\n", what, speed,
              static_cast<double>(kValues) / seconds / 1e9, speed / copy);
}

void Run(int threads) {
  std::vector<uint16_t> source(kValues);
  std::vector<uint16_t> copied(kValues, 1);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<uint16_t> noise(1 << 20);
  for (uint16_t& value : noise) value = F32ToBf16(normal(random));
  for (int64_t at = 0; at < kValues; at += 1 << 20) {
    std::copy(noise.begin(), noise.end(), source.begin() + at);
  }

  const double copy_seconds = Seconds(threads, [&](int64_t at) {
    std::memcpy(copied.data() + at, source.data() + at, kSlice * sizeof(uint16_t));
  });
  const double copy = 4.0 * kValues / copy_seconds / 1e9;
  std::printf("row %s, %d threads\n", FastestFourBitRow().name, threads);
  Print("copy bf16", copy_seconds, 4.0 * kValues, copy);

  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    for (const int32_t group_size : {32, 64, 4096}) {
      FourBitQuantizer quantizer(
          kRows, kColumns, {.format = format, .group_size = group_size, .double_quant = false});
      const double seconds = Seconds(threads, [&](int64_t at) {
        const std::span<const uint16_t> slice(source.data() + at, kSlice);
        if (!quantizer.Add(at, DType::kBF16, slice).ok()) std::abort();
      });
      char what[64];
      std::snprintf(what, sizeof(what), "bf16 to %s, group %d", Name(format), group_size);
      Print(what, seconds, kValues * (2.5 + 4.0 / group_size), copy);

      const FourBitMatrix matrix = quantizer.Finish();
      std::snprintf(what, sizeof(what), "%s to fp32 in cache, group %d", Name(format), group_size);
      const double back = Seconds(threads, [&](int64_t at) {
        thread_local std::vector<float> values(kSlice);
        DequantizeFourBit(matrix, at, values);
      });
      Print(what, back, kValues * (4.5 + 4.0 / group_size), copy);
    }
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  if (threads < 1) {
    std::fprintf(stderr, "usage: quantize_bench [THREADS]\n");
    return 2;
  }
  nibble::Run(threads);
  return 0;
}
