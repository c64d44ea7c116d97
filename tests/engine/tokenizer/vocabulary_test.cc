#include "engine/tokenizer/vocabulary.h"

#include <gmock/gmock.h>

#include <random>
#include <string>

namespace nibble {
namespace {

using testing::HasSubstr;
using Kind = Vocabulary::Kind;

absl::Status MakeStatus(std::vector<Vocabulary::Entry> entries) {
  return Vocabulary::Make("v.json", entries, true, 0).status();
}

TEST(Vocabulary, FindsEveryTextAndNoOther) {
  std::mt19937 random(1);
  std::vector<std::string> texts;
  for (int i = 0; i < 20000; ++i)
    texts.push_back(std::to_string(i) + std::string(random() % 30, 'x'));
  std::vector<Vocabulary::Entry> entries;
  for (const std::string& text : texts) {
    entries.push_back({text, static_cast<int64_t>(entries.size())});
  }
  const auto vocabulary = Vocabulary::Make("v.json", entries, false, 0);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  for (int32_t id = 0; id < vocabulary->size(); ++id) {
    const std::string& text = texts[static_cast<size_t>(id)];
    ASSERT_EQ(vocabulary->Find(text, Kind::kText), id);
    ASSERT_EQ(vocabulary->Text(id), text);
    ASSERT_EQ(vocabulary->Find(text, Kind::kBytes), -1);
    ASSERT_EQ(vocabulary->Find(text + "y", Kind::kText), -1);
  }
}

TEST(Vocabulary, TellsBytesFromTextsThatLookAlike) {
  const auto vocabulary =
      Vocabulary::Make("v.json", std::vector<Vocabulary::Entry>{{"Ġa", 0}, {" a", 1}}, true, 1);
  ASSERT_TRUE(vocabulary.ok());
  EXPECT_EQ(vocabulary->Find(" a", Kind::kBytes), 0);
  EXPECT_EQ(vocabulary->Find(" a", Kind::kText), 1);
  EXPECT_EQ(vocabulary->FindSpelled("Ġa"), 0);
  EXPECT_EQ(vocabulary->FindSpelled(" a"), 1);
  EXPECT_EQ(vocabulary->FindSpelled("a"), -1);
}

TEST(Vocabulary, MayHaveHoles) {
  const auto vocabulary =
      Vocabulary::Make("v.json", std::vector<Vocabulary::Entry>{{"a", 3}}, true, 0);
  ASSERT_TRUE(vocabulary.ok());
  EXPECT_EQ(vocabulary->size(), 4);
  EXPECT_EQ(vocabulary->kind(0), Kind::kHole);
  EXPECT_EQ(vocabulary->Text(0), "");
}

TEST(Vocabulary, RefusesIdsAndTextsThatOccurTwiceAndIdsOutOfRange) {
  const absl::Status twice = MakeStatus({{"a", 1}, {"b", 1}});
  EXPECT_EQ(twice.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("\"a\" and \"b\" both have id 1"));
  const absl::Status two = MakeStatus({{"a", 1}, {"a", 2}});
  EXPECT_EQ(two.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(two.message()), HasSubstr("\"a\" has two ids, 1 and 2"));
  for (const int64_t id : {int64_t{-1}, int64_t{65538}, int64_t{1} << 31, int64_t{1} << 62}) {
    const absl::Status status = MakeStatus({{"a", id}});
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << id;
    EXPECT_THAT(std::string(status.message()), HasSubstr("wanted 0…65537 of 1 tokens"));
  }
}

}  // namespace
}  // namespace nibble
