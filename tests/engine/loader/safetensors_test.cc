#include "engine/loader/safetensors.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::IsOk;
using ::nibble::testing::SafetensorsFile;
using ::nibble::testing::SafetensorsWriter;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

absl::StatusOr<std::vector<SafetensorsEntry>> Parse(const std::string& file) {
  // A copy of exactly this size, so that a sanitizer sees a read past its end.
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  auto parsed = ParseSafetensors("m.safetensors", bytes);
  if (parsed.ok()) {
    for (SafetensorsEntry& entry : *parsed) entry.data = {};
  }
  return parsed;
}

// One entry of this shape and these offsets, over `data_bytes` bytes.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseOne(const std::string& dtype,
                                                       const std::string& shape,
                                                       const std::string& offsets,
                                                       size_t data_bytes) {
  return Parse(SafetensorsFile(absl::StrCat("{\"w\":{\"dtype\":", dtype, ",\"shape\":", shape,
                                            ",\"data_offsets\":", offsets, "}}"),
                               std::string(data_bytes, 'x')));
}

auto Lost(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}

TEST(Safetensors, ListsTensorsInTheOrderOfTheirData) {
  const std::string file = SafetensorsFile(
      R"({"b":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"__metadata__":{"k":"v"}}   )",
      "AAAAbbbbbbbb");
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  const auto tensors = ParseSafetensors("m", bytes);
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, "F32");
  EXPECT_TRUE((*tensors)[0].shape.empty());
  EXPECT_EQ((*tensors)[1].name, "b");
  EXPECT_EQ((*tensors)[1].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ((*tensors)[1].data.size(), 8u);
  EXPECT_EQ((*tensors)[1].data[0], 'b');
}

TEST(Safetensors, AllowsEmptyTensorsAndEmptyFiles) {
  EXPECT_THAT(Parse(SafetensorsFile("{}", "")), IsOk());
  EXPECT_THAT(ParseOne("\"F32\"", "[0,5]", "[0,0]", 0), IsOk());
  const auto many = Parse(SafetensorsFile(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                          R"("e":{"dtype":"F32","shape":[0],"data_offsets":[2,2]},)"
                                          R"("z":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                                          "xyz"));
  EXPECT_THAT(many, IsOk());
}

TEST(Safetensors, CountsSubByteTypesInBits) {
  EXPECT_THAT(ParseOne("\"F4\"", "[2,3]", "[0,3]", 3), IsOk());
  EXPECT_THAT(ParseOne("\"F6_E2M3\"", "[4]", "[0,3]", 3), IsOk());
  EXPECT_THAT(ParseOne("\"F4\"", "[3]", "[0,2]", 2), Lost("no size in whole bytes"));
}

TEST(Safetensors, RefusesAWrongLength) {
  EXPECT_THAT(Parse(""), Lost("has 0 bytes, wanted at least 8"));
  EXPECT_THAT(Parse("1234567"), Lost("has 7 bytes"));
  std::string file = SafetensorsFile("{}", "");
  for (const char high : {'\x01', '\x7f', '\xff'}) {  // header lengths past the file and past int64
    file[7] = high;
    EXPECT_THAT(Parse(file), Lost("says that its header has"));
  }
  EXPECT_THAT(Parse(SafetensorsFile("{}", "").substr(0, 9)),
              Lost("says that its header has 2 bytes"));
  EXPECT_THAT(Parse(std::string(8, '\0')), Lost("does not begin with {"));
}

TEST(Safetensors, RefusesAHeaderOver100MB) {
  const std::string file = SafetensorsFile(absl::StrCat("{}", std::string(100'000'000, ' ')), "");
  EXPECT_THAT(Parse(file), Lost("at most 100000000"));
}

TEST(Safetensors, RefusesAHeaderThatIsNoJsonObject) {
  EXPECT_THAT(Parse(SafetensorsFile("[]", "")), Lost("does not begin with {"));
  EXPECT_THAT(Parse(SafetensorsFile(" {}", "")), Lost("does not begin with {"));
  EXPECT_THAT(Parse(SafetensorsFile("{\"a\":", "")), Lost("not valid JSON"));
  EXPECT_THAT(Parse(SafetensorsFile("{}x", "")), Lost("not valid JSON"));
  EXPECT_THAT(Parse(SafetensorsFile("{\"\xff\":1}", "")), Lost("not valid JSON"));
}

TEST(Safetensors, RefusesDuplicateNames) {
  const std::string entry = R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(Parse(SafetensorsFile(absl::StrCat("{", entry, ",", entry, "}"), "x")),
              Lost("has the key \"w\" twice"));
}

TEST(Safetensors, RefusesMalformedEntries) {
  EXPECT_THAT(Parse(SafetensorsFile(R"({"w":1})", "")), Lost("tensor \"w\": is not an object"));
  EXPECT_THAT(Parse(SafetensorsFile(R"({"w":{}})", "")), Lost("other than"));
  EXPECT_THAT(ParseOne("4", "[1]", "[0,4]", 4), Lost("has no dtype"));
  EXPECT_THAT(ParseOne("\"F33\"", "[1]", "[0,4]", 4), Lost("no size in whole bytes"));
  EXPECT_THAT(ParseOne("\"F32\"", "1", "[0,4]", 4), Lost("has no shape"));
  EXPECT_THAT(ParseOne("\"F32\"", "[-1]", "[0,4]", 4), Lost("has no shape"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1.5]", "[0,4]", 4), Lost("has no shape"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1e999]", "[0,4]", 4), Lost("not valid JSON"));
  EXPECT_THAT(ParseOne("\"F32\"", "[99999999999999999999]", "[0,4]", 4), Lost("has no shape"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[4,0]", 4), Lost("has no data_offsets"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[-4,0]", 4), Lost("has no data_offsets"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[0,4,8]", 4), Lost("has no data_offsets"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[0]", 4), Lost("has no data_offsets"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[0,4],\"more\":1", 4), Lost("other than"));
  EXPECT_THAT(Parse(SafetensorsFile(R"({"__metadata__":{"a":1}})", "")), Lost("wanted a string"));
  EXPECT_THAT(Parse(SafetensorsFile(R"({"__metadata__":[]})", "")), Lost("__metadata__"));
}

TEST(Safetensors, RefusesSizesThatOverflow) {
  // 2^62 values of 4 bytes are 2^64 bytes, which is 0 in 64 bits.
  EXPECT_THAT(ParseOne("\"F32\"", "[4611686018427387904]", "[0,0]", 0),
              Lost("no size in whole bytes"));
  EXPECT_THAT(ParseOne("\"U8\"", "[4294967296,4294967296]", "[0,0]", 0),
              Lost("no size in whole bytes"));
  EXPECT_THAT(ParseOne("\"U8\"", "[9223372036854775807,2]", "[0,0]", 0),
              Lost("no size in whole bytes"));
  EXPECT_THAT(ParseOne("\"U8\"", "[1]", "[9223372036854775806,9223372036854775807]", 1),
              Lost("begins at 9223372036854775806"));
}

TEST(Safetensors, RefusesHolesOverlapsAndLeftovers) {
  EXPECT_THAT(ParseOne("\"F32\"", "[2]", "[0,4]", 4),
              Lost("has 4 bytes, dtype F32 and shape [2] want 8"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[4,8]", 8),
              Lost("begins at 4, the tensor before it ends at 0"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[0,4]", 3), Lost("ends at 4, the data at 3"));
  EXPECT_THAT(ParseOne("\"F32\"", "[1]", "[0,4]", 5), Lost("has 5 bytes of data, its tensors 4"));
  EXPECT_THAT(Parse(SafetensorsFile(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                    R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                                    "xyz")),
              Lost("begins at 1, the tensor before it ends at 2"));
  EXPECT_THAT(Parse(SafetensorsFile(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                    R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                                    "xy")),
              Lost("begins at 0, the tensor before it ends at 2"));
}

std::string SmallFile() {
  SafetensorsWriter writer;
  writer.Add("a", "F32", {2, 3}, std::string(24, 'a'));
  writer.Add("b", "BF16", {4}, std::string(8, 'b'));
  return writer.File();
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string file = SmallFile();
  ASSERT_THAT(Parse(file), IsOk());
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THAT(Parse(file.substr(0, size)), Lost("m.safetensors: ")) << size;
  }
}

TEST(Safetensors, AnswersEveryFlippedHeaderBit) {
  const std::string file = SmallFile();
  for (size_t at = 0; at < file.size() - 32; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = file;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      const auto parsed = Parse(flipped);
      EXPECT_TRUE(parsed.ok() || parsed.status().code() == absl::StatusCode::kDataLoss)
          << at << " " << bit << " " << parsed.status();
    }
  }
}

}  // namespace
}  // namespace nibble
