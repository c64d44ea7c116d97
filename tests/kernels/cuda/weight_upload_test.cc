// Weights through page-locked pieces: what comes back from the device is the checkpoint's.
#include "kernels/cuda/weight_upload.h"

#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/four_bit_pack.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

std::vector<float> RandomValues(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A weight in device memory of its own, each part with nothing behind it.
struct DeviceWeight {
  explicit DeviceWeight(const WeightSpec& spec, const PackedSize& size)
      : codes(size.codes), scales(size.scales), nested(size.nested), tables(size.tables) {
    weight = {spec, codes.data(), scales.data(), nested.data(), tables.data()};
  }
  DeviceArray<char> codes, scales, nested, tables;
  Weight weight;
};

class WeightUploadTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    pieces_ = DeviceScratch(WeightUpload::kDeviceBytes);
    auto upload = WeightUpload::Make(traits().ordinal, pieces_.data());
    ASSERT_TRUE(upload.ok()) << upload.status();
    upload_ = *std::move(upload);
  }

  // Packs, unpacks on the device all panels at once, and compares every byte.
  void CheckFourBit(const FourBitMatrix& matrix, bool own_tables) {
    const WeightSpec spec = {.format = matrix.format,
                             .n = matrix.n,
                             .k = matrix.k,
                             .group_size = matrix.group_size,
                             .double_quant = matrix.double_quant,
                             .own_tables = own_tables};
    DeviceWeight on_device(spec, FourBitPackedBytes(spec));
    const absl::Status status = upload_->PackFourBit(matrix, &on_device.weight);
    ASSERT_TRUE(status.ok()) << status;
    DeviceArray<uint8_t> codes(static_cast<int64_t>(matrix.codes.size()));
    Tape tape;
    UnpackFourBitCodes(&tape, on_device.weight, 0, NumPanels(spec.n), codes.data());
    Play(tape);
    EXPECT_EQ(codes.Get(), matrix.codes);
    const auto scale_bytes = static_cast<int64_t>(matrix.double_quant ? matrix.absmax_codes.size()
                                                                      : 4 * matrix.absmax.size());
    DeviceArray<char> scales(scale_bytes);
    if (GroupsInRows(spec)) {
      tape.Clear();
      UnpackFourBitScales(&tape, on_device.weight, 0, NumPanels(spec.n), scales.data());
      Play(tape);
    } else {
      CopyNow(scales.data(), on_device.scales.data(), scale_bytes);
    }
    const void* const want = matrix.double_quant
                                 ? static_cast<const void*>(matrix.absmax_codes.data())
                                 : matrix.absmax.data();
    EXPECT_EQ(std::memcmp(scales.Get().data(), want, static_cast<size_t>(scale_bytes)), 0);
    if (matrix.double_quant) {
      std::vector<float> nested(matrix.nested_absmax.size() + 1);
      std::memcpy(nested.data(), on_device.nested.Get().data(), 4 * nested.size());
      EXPECT_EQ(nested.back(), matrix.nested_offset);
      nested.pop_back();
      EXPECT_EQ(nested, matrix.nested_absmax);
    }
    if (!own_tables) return;
    std::vector<float> tables(16 + (matrix.double_quant ? 256 : 0));
    std::memcpy(tables.data(), on_device.tables.Get().data(), 4 * tables.size());
    EXPECT_TRUE(std::equal(matrix.codebook.begin(), matrix.codebook.end(), tables.begin()));
    if (matrix.double_quant) {
      EXPECT_TRUE(
          std::equal(matrix.nested_map.begin(), matrix.nested_map.end(), tables.begin() + 16));
    }
  }

  DeviceArray<char> pieces_;
  std::unique_ptr<WeightUpload> upload_;
};

TEST_F(WeightUploadTest, FourBitMatricesComeBackBitForBit) {
  uint32_t seed = 0;
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 64}, {16, 128}, {33, 192}, {17, 96}, {5, 37}, {300, 4096}}) {
    for (const bool double_quant : {false, true}) {
      SCOPED_TRACE(testing::Message() << n << "x" << k << (double_quant ? " DQ" : ""));
      const auto matrix = QuantizeFourBit(
          RandomValues(n * k, ++seed), n, k,
          {.format = WeightFormat::kNf4, .group_size = 64, .double_quant = double_quant});
      ASSERT_TRUE(matrix.ok());
      CheckFourBit(*matrix, false);
      CheckFourBit(*matrix, true);
    }
  }
}

TEST_F(WeightUploadTest, MatricesLargerThanAPieceCrossInSlices) {
  const int64_t n = 2050, k = 8192;  // 8.4 MB of codes
  auto matrix = QuantizeFourBit(RandomValues(64 * k, 1), 64, k, {.group_size = 32});
  ASSERT_TRUE(matrix.ok());
  matrix->n = n;  // the same rows again and again
  std::mt19937 random(5);
  matrix->codes.resize(static_cast<size_t>(n * k / 2));
  for (uint8_t& code : matrix->codes) code = static_cast<uint8_t>(random());
  if (matrix->double_quant) {
    matrix->absmax_codes.resize(static_cast<size_t>(n * k / 32), 3);
    matrix->nested_absmax.resize(static_cast<size_t>((n * k / 32 + 255) / 256), 0.5f);
  } else {
    matrix->absmax.resize(static_cast<size_t>(n * k / 32), 0.25f);
  }
  CheckFourBit(*matrix, false);
}

TEST_F(WeightUploadTest, Int8RowsArePaddedWithZeros) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 33}, {40, 160}}) {
    Int8Matrix matrix = MakeInt8Matrix(n, k);
    std::mt19937 random(3);
    for (int8_t& code : matrix.codes) code = static_cast<int8_t>(random());
    for (float& scale : matrix.absmax) scale = static_cast<float>(random() % 100);
    const WeightSpec spec = {.format = WeightFormat::kInt8, .n = n, .k = k};
    DeviceWeight on_device(spec, DensePackedBytes(spec));
    ASSERT_TRUE(upload_->PackInt8(matrix, &on_device.weight).ok());
    const std::vector<char> codes = on_device.codes.Get();
    const int64_t stride = Int8Stride(k);
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t i = 0; i < stride; ++i) {
        const int8_t want = i < k ? matrix.codes[static_cast<size_t>(row * k + i)] : int8_t{0};
        ASSERT_EQ(static_cast<int8_t>(codes[static_cast<size_t>(row * stride + i)]), want);
      }
    }
    const std::vector<char> scales = on_device.scales.Get();
    EXPECT_EQ(std::memcmp(scales.data(), matrix.absmax.data(), 4 * matrix.absmax.size()), 0);
  }
}

TEST_F(WeightUploadTest, SixteenBitRowsGoWhereTheyBelong) {
  const WeightSpec spec = {.format = WeightFormat::kBf16, .n = 10, .k = 7};
  DeviceWeight on_device(spec, DensePackedBytes(spec));
  std::vector<uint16_t> values(70);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(1000 + i);
  ASSERT_TRUE(upload_->Pack16(4, 6, values.data() + 28, &on_device.weight).ok());
  ASSERT_TRUE(upload_->Pack16(0, 4, values.data(), &on_device.weight).ok());
  EXPECT_EQ(std::memcmp(on_device.codes.Get().data(), values.data(), 140), 0);
}

TEST_F(WeightUploadTest, RefusesWhatEveryDeviceRefuses) {
  const auto matrix = QuantizeFourBit(RandomValues(64 * 16, 1), 16, 64, {.double_quant = true});
  ASSERT_TRUE(matrix.ok());
  Weight weight;
  weight.spec = {.n = 16, .k = 128, .double_quant = true};
  EXPECT_EQ(upload_->PackFourBit(*matrix, &weight).code(), absl::StatusCode::kInvalidArgument);
  weight.spec = {.format = WeightFormat::kInt8, .n = 4, .k = 4};
  EXPECT_EQ(upload_->PackInt8(MakeInt8Matrix(4, 5), &weight).code(),
            absl::StatusCode::kInvalidArgument);
  weight.spec = {.format = WeightFormat::kBf16, .n = 4, .k = 4};
  const uint16_t values[16] = {};
  EXPECT_EQ(upload_->Pack16(1, 4, values, &weight).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WeightUploadTest, ThreadsDoNotMixTheirPieces) {
  constexpr int kThreads = 6;
  constexpr int64_t kCount = 3 << 20;
  std::vector<DeviceArray<uint8_t>> arrays;
  for (int i = 0; i < kThreads; ++i) arrays.emplace_back(kCount);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const std::vector<uint8_t> values(kCount, static_cast<uint8_t>(i + 1));
      for (int time = 0; time < 3; ++time) {
        EXPECT_TRUE(
            upload_->Copy(arrays[static_cast<size_t>(i)].data(), values.data(), kCount).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kThreads; ++i) {
    EXPECT_EQ(arrays[static_cast<size_t>(i)].Get(),
              std::vector<uint8_t>(kCount, static_cast<uint8_t>(i + 1)));
  }
}

}  // namespace
}  // namespace nibble::cuda
