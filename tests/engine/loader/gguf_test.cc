#include "engine/loader/gguf.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"

namespace nibble {
namespace {

using ::nibble::testing::GgufString;
using ::nibble::testing::GgufWriter;
using ::nibble::testing::IsOk;
using ::nibble::testing::RawBytes;
using ::nibble::testing::StatusIs;
using ::testing::HasSubstr;

// A file whose bytes live as long as what was parsed from them, in a buffer of exactly their size.
struct Parsed {
  explicit Parsed(const std::string& file)
      : bytes(file.begin(), file.end()), gguf(ParseGguf("m.gguf", bytes)) {}
  std::vector<uint8_t> bytes;
  absl::StatusOr<GgufFile> gguf;
};

absl::Status ParseStatus(const std::string& file) { return Parsed(file).gguf.status(); }
absl::Status StatusOf(const std::function<void(GgufWriter&)>& fill) {
  GgufWriter writer;
  fill(writer);
  return ParseStatus(writer.File());
}

auto Lost(const std::string& part) {
  return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(part));
}
auto Unsupported(const std::string& part) {
  return StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(part));
}

GgufWriter Sample() {
  GgufWriter writer;
  writer.AddText("text", "h\xc3\xa9");
  writer.AddField("u8", 0, RawBytes<uint8_t>(200));
  writer.AddField("i8", 1, RawBytes<int8_t>(-3));
  writer.AddField("u16", 2, RawBytes<uint16_t>(60000));
  writer.AddField("i16", 3, RawBytes<int16_t>(-300));
  writer.AddU32("u32", 4000000000u);
  writer.AddField("i32", 5, RawBytes<int32_t>(-7));
  writer.AddF32("f32", 0.5f);
  writer.AddBool("bool", true);
  writer.AddField("u64", 10, RawBytes<uint64_t>(1));
  writer.AddField("huge", 10, RawBytes(std::numeric_limits<uint64_t>::max()));
  writer.AddField("i64", 11, RawBytes<int64_t>(-9));
  writer.AddField("f64", 12, RawBytes(0.25));
  writer.AddTexts("texts", {"a", "", "ccc"});
  writer.AddInts("ints", {1, -2});
  writer.AddTensor("w", {2, 3}, 0, std::string(24, 'w'));
  writer.AddTensor("q", {2, 64}, 8, std::string(4 * 34, 'q'));
  return writer;
}

TEST(Gguf, ReadsEveryKindOfFieldAndTensor) {
  const Parsed parsed(Sample().File());
  ASSERT_THAT(parsed.gguf, IsOk());
  const GgufFile& file = *parsed.gguf;
  EXPECT_EQ(*file.fields.Find("text")->AsText(), "h\xc3\xa9");
  EXPECT_EQ(*file.fields.Find("u8")->AsInt(), 200);
  EXPECT_EQ(*file.fields.Find("i8")->AsInt(), -3);
  EXPECT_EQ(*file.fields.Find("u16")->AsInt(), 60000);
  EXPECT_EQ(*file.fields.Find("i16")->AsInt(), -300);
  EXPECT_EQ(*file.fields.Find("u32")->AsInt(), 4000000000);
  EXPECT_EQ(*file.fields.Find("i32")->AsInt(), -7);
  EXPECT_EQ(*file.fields.Find("f32")->AsDouble(), 0.5);
  EXPECT_TRUE(*file.fields.Find("bool")->AsBool());
  EXPECT_EQ(*file.fields.Find("u64")->AsInt(), 1);
  EXPECT_EQ(*file.fields.Find("huge")->AsDouble(), 18446744073709551615.0);
  EXPECT_EQ(*file.fields.Find("i64")->AsInt(), -9);
  EXPECT_EQ(*file.fields.Find("f64")->AsDouble(), 0.25);
  EXPECT_EQ(*file.Strings("texts"), (std::vector<std::string>{"a", "", "ccc"}));
  EXPECT_EQ(*file.Ints("ints"), (std::vector<int32_t>{1, -2}));
  EXPECT_TRUE(file.Strings("absent")->empty());
  EXPECT_TRUE(file.Ints("absent")->empty());
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "w");
  EXPECT_EQ(file.tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.tensors[0].bytes, 24);
  EXPECT_EQ(file.tensors[0].data[0], 'w');
  EXPECT_EQ(file.tensors[1].type, TensorType::kQ8_0);
  EXPECT_EQ(file.tensors[1].bytes, 4 * 34);
  EXPECT_EQ(file.tensors[1].data[4 * 34 - 1], 'q');
  EXPECT_EQ(file.tensors[1].file, "m.gguf");
}

TEST(Gguf, ReadsVersion2) {
  GgufWriter writer = Sample();
  writer.version = 2;
  EXPECT_THAT(ParseStatus(writer.File()), IsOk());
}

TEST(Gguf, RefusesOtherVersionsByName) {
  for (const uint32_t version : {0u, 1u, 4u}) {
    GgufWriter writer;
    writer.version = version;
    EXPECT_THAT(
        ParseStatus(writer.File()),
        Unsupported("m.gguf: is GGUF version " + std::to_string(version) + "; supported: 2, 3"));
  }
  GgufWriter big_endian;
  big_endian.version = 0x03000000;
  EXPECT_THAT(ParseStatus(big_endian.File()), Unsupported("is big-endian GGUF"));
}

TEST(Gguf, RefusesAnotherMagic) {
  EXPECT_THAT(ParseStatus("GGML" + std::string(100, '\0')),
              StatusIs(absl::StatusCode::kInvalidArgument, "m.gguf: does not begin with GGUF"));
}

TEST(Gguf, HonoursItsAlignment) {
  GgufWriter writer;
  writer.alignment = 128;
  writer.AddU32("general.alignment", 128);
  writer.AddTensor("a", {1}, 0, "AAAA");
  writer.AddTensor("b", {1}, 0, "BBBB");
  const Parsed parsed(writer.File());
  ASSERT_THAT(parsed.gguf, IsOk());
  EXPECT_EQ((parsed.gguf->tensors[0].data - parsed.bytes.data()) % 128, 0);
  EXPECT_EQ(parsed.gguf->tensors[1].data[0], 'B');
}

TEST(Gguf, RefusesAlignmentsThatAreNone) {
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 21, 0x80000000u}) {
    EXPECT_THAT(StatusOf([&](GgufWriter& w) { w.AddU32("general.alignment", alignment); }),
                Lost("general.alignment"))
        << alignment;
  }
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddText("general.alignment", "32"); }),
              Lost("general.alignment"));
}

TEST(Gguf, WeighsCountsAgainstTheFileBeforeAllocating) {
  for (const uint64_t count : {uint64_t{1000}, uint64_t{1} << 32, uint64_t{1} << 60,
                               std::numeric_limits<uint64_t>::max()}) {
    GgufWriter fields;
    fields.claimed_fields = count;
    EXPECT_THAT(ParseStatus(fields.File()), Lost("metadata fields")) << count;
    GgufWriter tensors;
    tensors.claimed_tensors = count;
    EXPECT_THAT(ParseStatus(tensors.File()), Lost("tensors, but only")) << count;
    for (const uint32_t type : {0u, 5u, 8u, 12u}) {
      EXPECT_THAT(StatusOf([&](GgufWriter& w) { w.AddArray("a", type, count, ""); }),
                  Lost("has an array of"))
          << count << " " << type;
    }
  }
}

TEST(Gguf, RefusesStringsPastTheEnd) {
  for (const uint64_t length :
       {uint64_t{1000}, uint64_t{1} << 63, std::numeric_limits<uint64_t>::max()}) {
    EXPECT_THAT(StatusOf([&](GgufWriter& w) { w.AddField("t", 8, RawBytes(length) + "abc"); }),
                Lost("ends inside a string"));
    EXPECT_THAT(StatusOf([&](GgufWriter& w) { w.AddArray("t", 8, 1, RawBytes(length)); }),
                Lost("ends inside an array's string"));
  }
}

TEST(Gguf, RefusesBrokenFields) {
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddField("x", 13, "abcd"); }), Lost("field type 13"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddArray("x", 13, 0, ""); }), Lost("element type 13"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddField("x", 7, "\x02"); }), Lost("has the bool 2"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddText("x", "\xff"); }), Lost("not UTF-8"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddU32("", 1); }), Lost("name of 0 bytes"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddU32(std::string(65536, 'k'), 1); }),
              Lost("name of 65536 bytes"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) {
                w.AddU32("x", 1);
                w.AddText("x", "y");
              }),
              Lost("has the field \"x\" twice"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) {
                w.AddInts("x", {1});
                w.AddInts("x", {2});
              }),
              Lost("has the field \"x\" twice"));
}

TEST(Gguf, RefusesNestedArraysWithoutRecursion) {
  EXPECT_THAT(StatusOf([](GgufWriter& w) {
                std::string nested;
                for (int i = 0; i < 100000; ++i)
                  nested += RawBytes<uint32_t>(9) + RawBytes<uint64_t>(1);
                w.AddField("x", 9, nested);
              }),
              Unsupported("has an array of arrays"));
}

TEST(Gguf, RefusesArraysOfOtherElements) {
  GgufWriter writer;
  writer.AddInts("ints", {1});
  writer.AddTexts("texts", {"a"});
  const Parsed parsed(writer.File());
  ASSERT_THAT(parsed.gguf, IsOk());
  EXPECT_THAT(parsed.gguf->Strings("ints"), Lost("is not an array of strings"));
  EXPECT_THAT(parsed.gguf->Ints("texts"), Lost("is not an array of 32-bit integers"));
}

TEST(Gguf, RefusesTensorTypesByName) {
  const auto of_type = [](uint32_t type) {
    return StatusOf([&](GgufWriter& w) { w.AddTensorEntry("t", {256, 1}, type, 0); });
  };
  EXPECT_THAT(of_type(10), Unsupported("m.gguf: tensor \"t\": has type Q2_K; supported: F32"));
  EXPECT_THAT(of_type(23), Unsupported("IQ4_XS"));
  EXPECT_THAT(of_type(39), Unsupported("MXFP4"));
  EXPECT_THAT(of_type(28), Unsupported("F64"));
  EXPECT_THAT(of_type(77), Unsupported("type 77"));
}

TEST(Gguf, RefusesBrokenShapes) {
  const auto with = [](std::vector<uint64_t> dimensions, uint32_t type) {
    return StatusOf([&](GgufWriter& w) { w.AddTensorEntry("t", dimensions, type, 0); });
  };
  EXPECT_THAT(with({}, 0), Lost("has 0 dimensions"));
  EXPECT_THAT(with({1, 1, 1, 1, 1}, 0), Lost("has 5 dimensions"));
  EXPECT_THAT(with({0, 4}, 0), Lost("has shape [4,0]"));
  EXPECT_THAT(with({4, 0}, 2), Lost("has shape [0,4]"));
  EXPECT_THAT(with({uint64_t{1} << 63, 1}, 0), Lost("has shape"));
  EXPECT_THAT(with({uint64_t{1} << 32, uint64_t{1} << 32}, 0), Lost("has shape"));
  EXPECT_THAT(with({uint64_t{1} << 62, 1}, 0), Lost("has shape"));    // 2^64 bytes
  EXPECT_THAT(with({uint64_t{1} << 62, 1}, 12), Lost("aligned to"));  // fits 64 bits, not the file
  EXPECT_THAT(with({33, 2}, 8), Lost("has rows of 33 values, blocks of Q8_0 have 32"));
  EXPECT_THAT(with({128, 2}, 14), Lost("has rows of 128 values, blocks of Q6_K have 256"));
}

TEST(Gguf, RefusesTensorsOutsideTheData) {
  const auto at = [](uint64_t offset, size_t data_bytes) {
    GgufWriter writer;
    writer.AddTensorEntry("t", {8}, 0, offset);
    std::string file = writer.File();
    return ParseStatus(file + std::string(data_bytes, 'x'));
  };
  EXPECT_THAT(at(0, 32), IsOk());
  EXPECT_THAT(at(32, 64), IsOk());
  EXPECT_THAT(at(0, 31), Lost("tensor \"t\" has 32 bytes at offset 0 of 31 bytes of data"));
  EXPECT_THAT(at(32, 63), Lost("at offset 32"));
  EXPECT_THAT(at(4, 64), Lost("aligned to 32"));
  EXPECT_THAT(at(std::numeric_limits<uint64_t>::max() - 31, 64), Lost("at offset"));
  EXPECT_THAT(at(uint64_t{1} << 63, 64), Lost("at offset"));
}

TEST(Gguf, RefusesOverlappingTensors) {
  GgufWriter writer;
  writer.AddTensorEntry("a", {16}, 0, 0);
  writer.AddTensorEntry("b", {8}, 0, 32);
  EXPECT_THAT(ParseStatus(writer.File() + std::string(64, 'x')), Lost("overlap at offset 32"));
}

TEST(Gguf, RefusesTensorNamesThatAreNone) {
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddTensor("", {1}, 0, "abcd"); }), Lost("name of 0"));
  EXPECT_THAT(StatusOf([](GgufWriter& w) { w.AddTensor(std::string(65, 't'), {1}, 0, "abcd"); }),
              Lost("name of 65 bytes"));
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string file = Sample().File();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THAT(ParseStatus(file.substr(0, size)), Lost("m.gguf: ")) << size;
  }
}

TEST(Gguf, AnswersEveryFlippedHeaderBit) {
  const std::string file = Sample().File();
  const size_t header = Sample().Header().size();
  for (size_t at = 0; at < header; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = file;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      const absl::Status status = ParseStatus(flipped);
      if (status.ok()) continue;
      EXPECT_TRUE(status.code() == absl::StatusCode::kDataLoss ||
                  status.code() == absl::StatusCode::kUnimplemented ||
                  (at < 4 && status.code() == absl::StatusCode::kInvalidArgument))
          << at << " " << bit << " " << status;
    }
  }
}

}  // namespace
}  // namespace nibble
