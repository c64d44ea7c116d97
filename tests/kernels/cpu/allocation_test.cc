// No product allocates: this program counts what operator new gives.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kernels/four_bit.h"
#include "tests/kernels/cpu/cpu_testing.h"

namespace {
std::atomic<int64_t> allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace nibble {
namespace {

TEST(MatMulAllocations, AreNoneForAnyFormat) {
  Random random(1);
  const int64_t m = 30, n = 200, k = 320;
  const std::vector<float> values = random.Normals(n * k, 0.1f);
  const Matrix x(m, k, random, 3);
  Int8Matrix int8 = MakeInt8Matrix(n, k);
  ASSERT_TRUE(QuantizeInt8(0, values, &int8).ok());
  for (const auto& backend : EveryCpu()) {
    const PackedMatrix packed[] = {
        {*backend, *QuantizeFourBit(values, n, k, {WeightFormat::kNf4, 64, true})},
        {*backend, *QuantizeFourBit(values, n, k, {WeightFormat::kFp4, 4096, true})},
        {*backend, WeightFormat::kBf16, n, k, ToHalves(WeightFormat::kBf16, values)},
        {*backend, int8, 6}};
    const LentScratch scratch(*backend, {.max_rows = m, .max_k = k});
    for (const PackedMatrix& matrix : packed) {
      Matrix out(m, n);
      const MatMulPart part = {&matrix.weight(), {}, out.View(), false};
      const int64_t before = allocations.load();
      backend->MatMul(x.View(), {&part, 1});
      EXPECT_EQ(allocations.load() - before, 0)
          << Name(matrix.weight().spec.format) << " " << NameOf(*backend);
    }
  }
}

}  // namespace
}  // namespace nibble
