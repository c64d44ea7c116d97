// Shards are safetensors that our own reader takes; a killed run's work is taken up, another's is
// not.
#include "engine/quantize/shard_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/safetensors.h"
#include "engine/status.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// A unit of this size is in the journal when it ends; smaller ones when as much has gathered.
constexpr int64_t kCommitted = 500;

std::vector<uint8_t> Numbers(int64_t count, int first) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  std::iota(bytes.begin(), bytes.end(), static_cast<uint8_t>(first));
  return bytes;
}

class ShardWriterTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<ShardWriter>> Open(int64_t max_shard_bytes = 1000,
                                                    const std::string& identity = "me") {
    return ShardWriter::Open(directory_.path(), {.identity = identity,
                                                 .header_bytes = 2048,
                                                 .max_shard_bytes = max_shard_bytes,
                                                 .commit_bytes = kCommitted});
  }
  static void Add(ShardWriter* writer, const std::string& name, int64_t bytes, int first) {
    const std::vector<uint8_t> data = Numbers(bytes, first);
    ASSERT_TRUE(writer->Begin(bytes).ok());
    ASSERT_TRUE(writer->AddEntry(name, "U8", {bytes}, bytes).ok());
    ASSERT_TRUE(writer->Write(std::span(data).first(data.size() / 2)).ok());
    ASSERT_TRUE(writer->Write(std::span(data).subspan(data.size() / 2)).ok());
    ASSERT_TRUE(writer->End(name).ok());
  }
  // Name to bytes of every tensor in a file.
  std::map<std::string, std::vector<uint8_t>> Read(const std::string& file) {
    std::map<std::string, std::vector<uint8_t>> tensors;
    const auto mapped = MappedFile::Open(absl::StrCat(directory_.path(), "/", file));
    EXPECT_TRUE(mapped.ok()) << mapped.status();
    if (!mapped.ok()) return tensors;
    const auto entries = ParseSafetensors(file, (*mapped)->bytes());
    EXPECT_TRUE(entries.ok()) << entries.status();
    if (!entries.ok()) return tensors;
    for (const SafetensorsEntry& entry : *entries) {
      tensors[entry.name].assign(entry.data.begin(), entry.data.end());
    }
    return tensors;
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  testing::TempDir directory_;
};

TEST_F(ShardWriterTest, WritesOneFileThatOurReaderTakes) {
  {
    auto writer = Open();
    ASSERT_TRUE(writer.ok()) << writer.status();
    Add(writer->get(), "a.weight", 10, 0);
    ASSERT_TRUE((*writer)->Begin(5).ok());
    ASSERT_TRUE((*writer)->AddEntry("scalar \"x\"", "U8", {}, 1).ok());
    ASSERT_TRUE((*writer)->Write(Numbers(1, 77)).ok());
    ASSERT_TRUE((*writer)->AddEntry("m", "F16", {2, 1}, 4).ok());
    ASSERT_TRUE((*writer)->Write(Numbers(4, 9)).ok());
    ASSERT_TRUE((*writer)->End("two").ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  EXPECT_THAT(Files(), ElementsAre("model.safetensors"));
  const auto tensors = Read("model.safetensors");
  EXPECT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors.at("a.weight"), Numbers(10, 0));
  EXPECT_EQ(tensors.at("scalar \"x\""), Numbers(1, 77));
  EXPECT_EQ(tensors.at("m"), Numbers(4, 9));
}

TEST_F(ShardWriterTest, BeginsAShardBeforeAUnitThatWouldPassTheSize) {
  auto writer = Open(25);
  ASSERT_TRUE(writer.ok());
  Add(writer->get(), "a", 10, 0);
  Add(writer->get(), "b", 15, 1);
  Add(writer->get(), "c", 1, 2);
  Add(writer->get(), "huge", 100, 3);
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_THAT(Files(), UnorderedElementsAre(
                           "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                           "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  EXPECT_EQ(Read("model-00001-of-00003.safetensors").size(), 2u);
  EXPECT_EQ(Read("model-00003-of-00003.safetensors").at("huge"), Numbers(100, 3));
  const auto index =
      ReadTextFile(absl::StrCat(directory_.path(), "/model.safetensors.index.json"), 1 << 20);
  ASSERT_TRUE(index.ok());
  EXPECT_THAT(*index, HasSubstr("\"total_size\": 126"));
  EXPECT_THAT(*index, HasSubstr("\"c\": \"model-00002-of-00003.safetensors\""));
}

TEST_F(ShardWriterTest, TakesUpWhatAKilledRunHasWritten) {
  {
    auto killed = Open(kCommitted + 1000);
    ASSERT_TRUE(killed.ok());
    Add(killed->get(), "big", kCommitted, 0);
    Add(killed->get(), "lost", 10, 1);  // in no journal yet
    ASSERT_TRUE((*killed)->Begin(10).ok());
    ASSERT_TRUE((*killed)->AddEntry("half", "U8", {10}, 10).ok());
    ASSERT_TRUE((*killed)->Write(Numbers(3, 1)).ok());
  }
  auto writer = Open(kCommitted + 1000);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ((*writer)->units_taken_up(), 1);
  EXPECT_TRUE((*writer)->Has("big"));
  EXPECT_FALSE((*writer)->Has("lost"));
  EXPECT_FALSE((*writer)->Has("half"));
  Add(writer->get(), "lost", 10, 1);
  Add(writer->get(), "half", 10, 2);
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_THAT(Files(), ElementsAre("model.safetensors"));
  const auto tensors = Read("model.safetensors");
  EXPECT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors.at("half"), Numbers(10, 2));
  EXPECT_EQ(tensors.at("big"), Numbers(kCommitted, 0));
}

TEST_F(ShardWriterTest, RefusesAnothersWorkAndLeavesItAlone) {
  {
    auto other = Open(1000, "other");
    ASSERT_TRUE(other.ok());
    Add(other->get(), "big", kCommitted, 0);
  }
  const absl::Status status = Open(1000, "me").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "PARTIAL_NOT_OURS");
  EXPECT_THAT(std::string(status.message()), HasSubstr("other options or from other files"));
  EXPECT_TRUE(Open(1000, "other").ok());
}

TEST_F(ShardWriterTest, RefusesADirectoryThatIsNoRunsWork) {
  directory_.Write("diary.txt", "dear diary");
  const absl::Status foreign = Open().status();
  EXPECT_EQ(ReasonOf(foreign), "PARTIAL_NOT_OURS") << foreign;
  EXPECT_THAT(std::string(foreign.message()), HasSubstr("holds files and no journal"));
  EXPECT_THAT(Files(), ElementsAre("diary.txt"));
  directory_.Write("journal", "Monday: rain.\n");
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("no journal of ours"));
}

TEST_F(ShardWriterTest, RefusesWhatAnotherRunWritesNow) {
  const auto first = Open();
  ASSERT_TRUE(first.ok());
  const absl::Status status = Open().status();
  EXPECT_EQ(ReasonOf(status), "PARTIAL_NOT_OURS");
  EXPECT_THAT(std::string(status.message()), HasSubstr("another run is writing"));
}

TEST_F(ShardWriterTest, RefusesADamagedJournalAndAShortShard) {
  {
    auto run = Open();
    ASSERT_TRUE(run.ok());
    Add(run->get(), "big", kCommitted, 0);
  }
  const std::string shard = absl::StrCat(directory_.path(), "/shard-00001");
  std::filesystem::resize_file(shard, 2100);
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("shorter than the journal says"));
  std::ofstream(absl::StrCat(directory_.path(), "/journal"), std::ios::app) << "0 1 x\n";
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("journal is damaged"));
}

TEST_F(ShardWriterTest, FollowsNoLink) {
  auto writer = Open();
  ASSERT_TRUE(writer.ok());
  std::filesystem::create_symlink("/dev/full", absl::StrCat(directory_.path(), "/shard-00001"));
  const absl::Status status = (*writer)->Begin(10);
  EXPECT_FALSE(status.ok()) << "a link where a shard should be is not followed";
}

}  // namespace
}  // namespace nibble
