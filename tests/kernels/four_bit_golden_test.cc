// The 4-bit formats against what bitsandbytes made of awkward matrices: tests/golden/four_bit,
// which tests/oracle/four_bit_goldens.py wrote.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"

namespace nibble {
namespace {

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(),
                 [](float v) { return std::bit_cast<uint32_t>(v); });
  return bits;
}

// Reads one array after another from a golden file.
class Golden {
 public:
  explicit Golden(const std::string& name) {
    std::ifstream file(std::string(NIBBLE_SOURCE_DIR "/tests/golden/four_bit/") + name,
                       std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  template <typename T>
  std::vector<T> Take(int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    const size_t size = values.size() * sizeof(T);
    if (size > bytes_.size() - at_) {
      ADD_FAILURE() << "golden file is too short";
      return values;
    }
    std::memcpy(values.data(), bytes_.data() + at_, size);
    at_ += size;
    return values;
  }

  bool AtEnd() const { return at_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

struct Source {
  std::string name;
  DType dtype = DType::kF32;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<float> wide;
  std::vector<uint16_t> half;  // empty in fp32
};

Source TakeSource(std::istringstream& line, Golden& golden) {
  Source source;
  std::string dtype;
  line >> source.name >> dtype >> source.n >> source.k;
  EXPECT_FALSE(line.fail());
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (dtype == Name(type)) source.dtype = type;
  }
  if (source.dtype == DType::kF32) {
    source.wide = golden.Take<float>(source.n * source.k);
    return source;
  }
  source.half = golden.Take<uint16_t>(source.n * source.k);
  for (const uint16_t half : source.half) source.wide.push_back(HalfToF32(source.dtype, half));
  return source;
}

FourBitMatrix Quantize(const Source& source, const FourBitForm& form) {
  FourBitQuantizer quantizer(source.n, source.k, form);
  const absl::Status added = source.dtype == DType::kF32
                                 ? quantizer.Add(0, source.wide)
                                 : quantizer.Add(0, source.dtype, source.half);
  EXPECT_TRUE(added.ok()) << added;
  return quantizer.Finish();
}

// Of the values in their type; FP4's negative zeros as positive ones.
uint64_t Fnv1a(const std::vector<float>& values, DType dtype, WeightFormat format) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const float value : values) {
    uint32_t bits = dtype == DType::kF32 ? std::bit_cast<uint32_t>(value) : F32ToHalf(dtype, value);
    const uint32_t sign = dtype == DType::kF32 ? 0x80000000u : 0x8000u;
    if (format == WeightFormat::kFp4 && bits == sign) bits = 0;
    for (int64_t byte = 0; byte < SizeOf(dtype); ++byte) {
      hash = (hash ^ (bits >> (8 * byte) & 0xffu)) * 0x100000001b3u;
    }
  }
  return hash;
}

void ExpectNestedEqual(Golden& golden, const Source& source, FourBitForm form,
                       FourBitMatrix* matrix) {
  const int64_t groups = matrix->NumGroups();
  const auto codes = golden.Take<uint8_t>(groups);
  const auto nested = golden.Take<float>((groups + kNestedGroup - 1) / kNestedGroup);
  const float offset = golden.Take<float>(1)[0];

  form.double_quant = true;
  const FourBitMatrix own = Quantize(source, form);
  EXPECT_LE(std::abs(std::bit_cast<int32_t>(own.nested_offset) - std::bit_cast<int32_t>(offset)),
            4);
  NestScales(offset, matrix);
  EXPECT_EQ(matrix->absmax_codes, codes);
  EXPECT_EQ(Bits(matrix->nested_absmax), Bits(nested));
  EXPECT_EQ(matrix->nested_map, DynamicMap());
  EXPECT_TRUE(matrix->absmax.empty());
}

void ExpectCaseEqual(std::istringstream& line, Golden& golden, const Source& source) {
  std::string format, nested;
  FourBitForm form{.double_quant = false};
  line >> format >> form.group_size >> nested;
  ASSERT_FALSE(line.fail());
  form.format = format == "nf4" ? WeightFormat::kNf4 : WeightFormat::kFp4;
  ASSERT_EQ(format, Name(form.format));

  FourBitMatrix matrix = Quantize(source, form);
  EXPECT_EQ(matrix.codes, golden.Take<uint8_t>((source.n * source.k + 1) / 2));
  EXPECT_EQ(matrix.codebook, CodebookOf(form.format));
  if (nested == "nested") {
    ExpectNestedEqual(golden, source, form, &matrix);
  } else {
    EXPECT_EQ(Bits(matrix.absmax), Bits(golden.Take<float>(matrix.NumGroups())));
  }
  std::vector<float> dequantized(source.wide.size());
  DequantizeFourBit(matrix, 0, dequantized);
  EXPECT_EQ(Fnv1a(dequantized, source.dtype, form.format), golden.Take<uint64_t>(1)[0])
      << "dequantized";
}

TEST(FourBit, EqualsBitsandbytesBitForBit) {
  std::ifstream index(NIBBLE_SOURCE_DIR "/tests/golden/four_bit/index.txt");
  Golden golden("four_bit.bin");
  Source source;
  int cases = 0;
  for (std::string line; std::getline(index, line);) {
    std::istringstream fields(line);
    std::string kind;
    fields >> kind;
    if (kind == "source") source = TakeSource(fields, golden);
    if (kind != "case") continue;
    SCOPED_TRACE(source.name + ": " + line);
    ExpectCaseEqual(fields, golden, source);
    ++cases;
  }
  EXPECT_TRUE(golden.AtEnd());
  EXPECT_GE(cases, 172) << "two formats, plain and nested, eight group sizes, three types at least";
}

TEST(FourBit, DynamicMapIsBitsandbytesFusedVariant) {
  Golden golden("dynamic_map.bin");
  const auto want = golden.Take<float>(256);
  const std::array<float, 256>& map = DynamicMap();
  EXPECT_EQ(Bits(std::vector<float>(map.begin(), map.end())), Bits(want));
  EXPECT_EQ(std::adjacent_find(map.begin(), map.end(), std::greater_equal<float>()), map.end())
      << "256 distinct ascending values";
  EXPECT_GT(map[0], -1.0f);
  const std::vector<std::pair<size_t, uint32_t>> spots = {
      {0, 0xbf7e3333},   {1, 0xbf7a999a},   {126, 0xb513a3b7}, {127, 0x00000000},
      {128, 0x3513a3b7}, {129, 0x365a1a94}, {254, 0x3f7e3333}, {255, 0x3f800000}};
  for (const auto& [index, bits] : spots) {
    EXPECT_EQ(std::bit_cast<uint32_t>(map[index]), bits) << index;
  }
}

TEST(FourBit, DynamicCodeMovesNineEntriesOfTheMapAsBitsandbytesDoes) {
  Golden golden("dynamic_map.bin");
  golden.Take<float>(256);
  const auto want = golden.Take<uint8_t>(256);
  ASSERT_TRUE(golden.AtEnd());
  int moved = 0;
  for (size_t i = 0; i < 256; ++i) {
    EXPECT_EQ(DynamicCode(DynamicMap()[i]), want[i]) << i;
    if (want[i] != i) ++moved;
  }
  EXPECT_EQ(moved, 9);
  EXPECT_EQ(DynamicCode(0.0f), 131);
}

}  // namespace
}  // namespace nibble
