// The seam to the CUDA runtime, the pretended one and the real one alike.
#include "kernels/cuda/runtime.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "kernels/half.h"
#include "tests/kernels/cuda/cuda_test.h"
#include "tests/support/status_matchers.h"

namespace nibble::cuda {
namespace {

using nibble::testing::IsOk;
using nibble::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

using Runtime = CudaTest;

Stream* TheStream() { return GetTestDevice().stream; }

// Page-locked memory for the length of a test.
template <typename T>
class HostArray {
 public:
  explicit HostArray(int64_t size) : data_(Allocate(size)) {}
  ~HostArray() { FreeHost(data_); }
  HostArray(const HostArray&) = delete;
  HostArray& operator=(const HostArray&) = delete;
  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  static T* Allocate(int64_t size) {
    const absl::StatusOr<void*> memory = MallocHost(size * static_cast<int64_t>(sizeof(T)));
    EXPECT_THAT(memory, IsOk());
    return memory.ok() ? static_cast<T*>(*memory) : nullptr;
  }
  T* data_;
};

TEST_F(Runtime, NamesItsDevice) {
  EXPECT_GE(CountDevices(), 1);
  EXPECT_FALSE(traits().name.empty());
  EXPECT_GE(traits().compute_major, 8);
  EXPECT_GT(traits().num_processors, 0);
  EXPECT_GE(traits().shared_bytes, 48 * 1024);
  EXPECT_GT(traits().l2_bytes, 0);
  int64_t free_bytes = 0, total_bytes = 0;
  ASSERT_THAT(MemoryInfo(&free_bytes, &total_bytes), IsOk());
  EXPECT_LE(free_bytes, total_bytes);
  EXPECT_GT(free_bytes, 0);
  EXPECT_THAT(UseDevice(0), IsOk());
  EXPECT_FALSE(IsLost());
}

TEST_F(Runtime, RefusesADeviceThatIsNotThere) {
  EXPECT_THAT(OpenDevice(CountDevices()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("there is no CUDA device")));
  EXPECT_THAT(OpenDevice(-1), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("-1")));
}

TEST_F(Runtime, MemoryIsAlignedAndRefusedWhenThereIsNone) {
  for (const int64_t bytes : {0, 1, 255, 257, 100000}) {
    absl::StatusOr<void*> memory = Malloc(bytes);
    ASSERT_THAT(memory, IsOk());
    EXPECT_NE(*memory, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(*memory) % 256, 0u);
    Free(*memory);
  }
  EXPECT_THAT(Malloc(traits().total_bytes * 2),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("cudaMalloc")));
  EXPECT_FALSE(IsLost());
  Free(nullptr);
  FreeHost(nullptr);
}

TEST_F(Runtime, PageLockedMemoryBeginsAsZeros) {
  const HostArray<char> memory(1000);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(memory[i], 0);
}

TEST_F(Runtime, CopiesThroughEveryKindOfMemory) {
  std::vector<int> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 7);
  const HostArray<int> locked(1000);
  const DeviceArray<int> first(1000);
  const DeviceArray<int> second(1000);
  ASSERT_THAT(Copy(first.data(), numbers.data(), 4000, TheStream()), IsOk());
  ASSERT_THAT(Copy(second.data(), first.data(), 4000, TheStream()), IsOk());
  ASSERT_THAT(Fill(second.data() + 10, 0xff, 40, TheStream()), IsOk());
  ASSERT_THAT(Copy(locked.data(), second.data(), 4000, TheStream()), IsOk());
  ASSERT_THAT(Synchronize(TheStream()), IsOk());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(locked[i], i >= 10 && i < 20 ? -1 : numbers[static_cast<size_t>(i)]);
  }
  EXPECT_THAT(Copy(nullptr, nullptr, 0, TheStream()), IsOk());
}

TEST_F(Runtime, AStreamWaitsForAnothersEvent) {
  const absl::StatusOr<Stream*> other = MakeStream();
  const absl::StatusOr<Event*> ready = MakeEvent();
  ASSERT_THAT(other, IsOk());
  ASSERT_THAT(ready, IsOk());
  const DeviceArray<char> from(1 << 16);
  const DeviceArray<char> to(1 << 16);
  for (uint8_t round = 1; round < 10; ++round) {
    ASSERT_THAT(Fill(from.data(), round, 1 << 16, *other), IsOk());
    ASSERT_THAT(Record(*ready, *other), IsOk());
    ASSERT_THAT(Wait(TheStream(), *ready), IsOk());
    ASSERT_THAT(Copy(to.data(), from.data(), 1 << 16, TheStream()), IsOk());
    ASSERT_THAT(Synchronize(TheStream()), IsOk());
    EXPECT_EQ(to.Get()[12345], static_cast<char>(round));
  }
  Destroy(*ready);
  Destroy(*other);
}

TEST_F(Runtime, EventsTellTheTimeBetweenThem) {
  const absl::StatusOr<Event*> begin = MakeEvent();
  const absl::StatusOr<Event*> end = MakeEvent();
  ASSERT_THAT(begin, IsOk());
  ASSERT_THAT(end, IsOk());
  const DeviceArray<char> memory(1 << 20);
  ASSERT_THAT(Record(*begin, TheStream()), IsOk());
  ASSERT_THAT(Fill(memory.data(), 1, 1 << 20, TheStream()), IsOk());
  ASSERT_THAT(Record(*end, TheStream()), IsOk());
  ASSERT_THAT(Synchronize(TheStream()), IsOk());
  const absl::StatusOr<double> ms = ElapsedMs(*begin, *end);
  ASSERT_THAT(ms, IsOk());
  EXPECT_GT(*ms, 0);
  EXPECT_LT(*ms, 10000);
  Destroy(*begin);
  Destroy(*end);
}

TEST_F(Runtime, AGraphDoesWhatWasRecordedAndNothingBefore) {
  const DeviceArray<char> first(std::vector<char>(64, 0));
  const DeviceArray<char> second(std::vector<char>(64, 0));
  ASSERT_THAT(BeginCapture(TheStream()), IsOk());
  ASSERT_THAT(Fill(first.data(), 7, 64, TheStream()), IsOk());
  ASSERT_THAT(Copy(second.data(), first.data(), 32, TheStream()), IsOk());
  const absl::StatusOr<Graph*> graph = EndCapture(TheStream());
  ASSERT_THAT(graph, IsOk());
  EXPECT_EQ(first.Get(), std::vector<char>(64, 0));
  for (int round = 0; round < 2; ++round) {
    ASSERT_THAT(Fill(second.data(), 1, 64, TheStream()), IsOk());
    ASSERT_THAT(IssueGraph(*graph, TheStream()), IsOk());
    ASSERT_THAT(Synchronize(TheStream()), IsOk());
    EXPECT_EQ(first.Get(), std::vector<char>(64, 7));
    EXPECT_EQ(second.Get()[31], 7);
    EXPECT_EQ(second.Get()[32], 1);
  }
  Destroy(*graph);
}

TEST_F(Runtime, SynchronisingInACaptureBreaksTheCaptureOnly) {
  ASSERT_THAT(BeginCapture(TheStream()), IsOk());
  EXPECT_THAT(Synchronize(TheStream()), StatusIs(absl::StatusCode::kInternal, HasSubstr("captur")));
  EXPECT_THAT(EndCapture(TheStream()), Not(IsOk()));
  EXPECT_THAT(Synchronize(TheStream()), IsOk());
  EXPECT_FALSE(IsLost());
}

// Of small whole numbers, whose sums are exact in every type.
class Gemm : public CudaTest, public ::testing::WithParamInterface<GemmCall::Type> {
 protected:
  static std::vector<int> Draw(size_t count, std::mt19937* random) {
    std::vector<int> values(count);
    for (int& value : values) value = static_cast<int>((*random)() % 9) - 4;
    return values;
  }
  // As the type of x and w, in bytes.
  static std::vector<char> Encode(const std::vector<int>& values) {
    std::vector<char> bytes;
    for (const int value : values) {
      const float number = static_cast<float>(value);
      const auto append = [&](auto encoded) {
        const char* const begin = reinterpret_cast<const char*>(&encoded);
        bytes.insert(bytes.end(), begin, begin + sizeof(encoded));
      };
      if (GetParam() == GemmCall::Type::kHalf) append(F32ToF16(number));
      if (GetParam() == GemmCall::Type::kBf16) append(F32ToBf16(number));
      if (GetParam() == GemmCall::Type::kInt8) append(static_cast<int8_t>(value));
      if (GetParam() == GemmCall::Type::kFloat) append(number);
    }
    return bytes;
  }
};

TEST_P(Gemm, IsTheProductWithTheTransposed) {
  std::mt19937 random(3);
  const bool whole = GetParam() == GemmCall::Type::kInt8;
  for (int round = 0; round < 40; ++round) {
    const auto draw = [&](uint32_t most) { return static_cast<int64_t>(random() % most) + 1; };
    const int64_t m = draw(40), n = draw(40) * 4, k = draw(30) * 4;
    const int64_t x_stride = k + draw(3) * 4, w_stride = k + draw(3) * 4, out_stride = n + draw(3);
    const std::vector<int> x = Draw(static_cast<size_t>(m * x_stride), &random);
    const std::vector<int> w = Draw(static_cast<size_t>(n * w_stride), &random);
    const DeviceArray<char> device_x(Encode(x), 256);
    const DeviceArray<char> device_w(Encode(w), 256);
    // Floats and int32 both have 4 bytes; 1.0f and 1 is what the sums begin with.
    const DeviceArray<float> out(std::vector<float>(static_cast<size_t>(m * out_stride),
                                                    whole ? std::bit_cast<float>(1) : 1.0f));
    const bool accumulate = round % 2 == 1;
    const GemmCall call = {GetParam(), accumulate ? 1u : 0u, m,         n,
                           k,          device_x.data(),      x_stride,  device_w.data(),
                           w_stride,   out.data(),           out_stride};
    ASSERT_THAT(IssueGemm(call, TheStream()), IsOk());
    const std::vector<float> got = out.Get();
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t column = 0; column < out_stride; ++column) {
        int want = accumulate || column >= n ? 1 : 0;
        for (int64_t i = 0; column < n && i < k; ++i) {
          want += x[static_cast<size_t>(row * x_stride + i)] *
                  w[static_cast<size_t>(column * w_stride + i)];
        }
        const float value = got[static_cast<size_t>(row * out_stride + column)];
        ASSERT_EQ(whole ? std::bit_cast<int>(value) : static_cast<int>(value), want)
            << "[" << m << "," << n << "," << k << "] at " << row << "," << column;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Gemm,
                         ::testing::Values(GemmCall::Type::kHalf, GemmCall::Type::kBf16,
                                           GemmCall::Type::kInt8, GemmCall::Type::kFloat));

}  // namespace
}  // namespace nibble::cuda
