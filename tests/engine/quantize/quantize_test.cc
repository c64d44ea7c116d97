// What is written reads back as what quantizing in memory gives, and again as itself; killed runs
// go on, failed ones leave nothing.
#include "engine/quantize/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/json.h"
#include "engine/loader/safetensors.h"
#include "engine/status.h"
#include "tests/engine/loader/tiny_models.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;

std::string Golden(const std::string& model) {
  return absl::StrCat(NIBBLE_SOURCE_DIR, "/tests/golden/models/", model);
}

void Ignore(int64_t, int64_t) {}

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Every file under a directory, by its path from there.
std::map<std::string, std::string> Files(const std::string& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    files[fs::relative(entry.path(), directory)] = ReadFile(entry.path());
  }
  return files;
}

std::unique_ptr<Checkpoint> OpenOrDie(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) std::abort();
  return *std::move(checkpoint);
}

std::vector<float> Values(const TensorRef& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.NumValues()));
  ReadRows(tensor, 0, tensor.rows(), values);
  return values;
}

class QuantizeTest : public ::testing::Test {
 protected:
  std::string Out(const std::string& name) const { return directory_.File(name); }

  testing::TempDir directory_;
};

TEST_F(QuantizeTest, WritesTheBitsThatQuantizingInMemoryGives) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    for (const bool double_quant : {false, true}) {
      const std::string out = Out(absl::StrCat(Name(format), double_quant));
      const auto result = QuantizeCheckpoint(
          Golden("stories260k"), out,
          {.format = format, .group_size = 128, .double_quant = double_quant, .num_threads = 2},
          Ignore);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_GT(result->matrices, 0);
      EXPECT_EQ(result->tensors_taken_up, 0);
      const auto source = OpenOrDie(Golden("stories260k"));
      const auto written = OpenOrDie(out);
      ASSERT_EQ(written->tensors().size(), source->tensors().size());
      int64_t matrices = 0;
      for (const TensorRef& tensor : source->tensors()) {
        const TensorRef* other = written->Find(tensor.name);
        ASSERT_NE(other, nullptr) << tensor.name;
        EXPECT_EQ(other->shape, tensor.shape);
        if (!IsBitsAndBytes(other->type)) {
          EXPECT_EQ(Values(*other), Values(tensor)) << tensor.name;
          continue;
        }
        ++matrices;
        const FourBitMatrix wanted =
            *QuantizeFourBit(Values(tensor), tensor.rows(), tensor.cols(),
                             {.format = format, .group_size = 128, .double_quant = double_quant});
        const FourBitMatrix got = ReadFourBit(*other);
        EXPECT_EQ(got.codes, wanted.codes) << tensor.name;
        EXPECT_EQ(got.absmax, wanted.absmax);
        EXPECT_EQ(got.absmax_codes, wanted.absmax_codes);
        EXPECT_EQ(got.nested_absmax, wanted.nested_absmax);
        EXPECT_EQ(got.nested_offset, wanted.nested_offset);
      }
      EXPECT_EQ(matrices, result->matrices);
    }
  }
}

TEST_F(QuantizeTest, WritesInt8) {
  ASSERT_TRUE(
      QuantizeCheckpoint(Golden("tiny_bert"), Out("int8"), {.format = WeightFormat::kInt8}, Ignore)
          .ok());
  const auto source = OpenOrDie(Golden("tiny_bert"));
  const auto written = OpenOrDie(Out("int8"));
  int64_t matrices = 0;
  for (const TensorRef& tensor : source->tensors()) {
    const TensorRef* other = written->Find(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    if (other->type != TensorType::kINT8) continue;
    ++matrices;
    Int8Matrix wanted = MakeInt8Matrix(tensor.rows(), tensor.cols());
    ASSERT_TRUE(QuantizeInt8(0, Values(tensor), &wanted).ok());
    EXPECT_EQ(ReadInt8(*other).codes, wanted.codes) << tensor.name;
    EXPECT_EQ(ReadInt8(*other).absmax, wanted.absmax);
  }
  EXPECT_EQ(matrices, 12);
}

TEST_F(QuantizeTest, WritingAgainGivesTheSameFiles) {
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4, WeightFormat::kInt8}) {
    const std::string once = Out(absl::StrCat(Name(format), "1"));
    const std::string twice = Out(absl::StrCat(Name(format), "2"));
    ASSERT_TRUE(QuantizeCheckpoint(Golden("tiny_chat"), once, {.format = format}, Ignore).ok());
    const auto again = QuantizeCheckpoint(once, twice, {.format = format}, Ignore);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(Files(twice), Files(once));
  }
}

// Every tensor of a directory, by name: its bytes, whatever type they are stored as.
std::map<std::string, std::string> Tensors(const std::string& directory) {
  std::map<std::string, std::string> tensors;
  for (const auto& [name, text] : Files(directory)) {
    if (!name.ends_with(".safetensors")) continue;
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    const auto entries = ParseSafetensors(name, std::span(bytes, text.size()));
    EXPECT_TRUE(entries.ok()) << entries.status();
    for (const SafetensorsEntry& entry : *entries) {
      tensors[entry.name].assign(entry.data.begin(), entry.data.end());
    }
  }
  return tensors;
}

TEST_F(QuantizeTest, WhatBitsandbytesWroteComesOutAgainBitForBit) {
  int checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(NIBBLE_SOURCE_DIR "/tests/golden/bnb")) {
    const std::string name = entry.path().filename();
    const auto source = OpenOrDie(entry.path());
    WeightFormat format = WeightFormat::kNf4;
    for (const TensorRef& tensor : source->tensors()) {
      if (IsBitsAndBytes(tensor.type)) format = FormatOf(tensor.type);
    }
    const auto result = QuantizeCheckpoint(entry.path(), Out(name), {.format = format}, Ignore);
    ASSERT_TRUE(result.ok()) << name << result.status();
    const auto before = Tensors(entry.path());
    const auto after = Tensors(Out(name));
    EXPECT_GT(before.size(), 10u);
    for (const auto& [tensor, bytes] : before) {
      ASSERT_TRUE(after.contains(tensor)) << name << " " << tensor;
      EXPECT_TRUE(after.at(tensor) == bytes) << name << " " << tensor;
    }
    EXPECT_EQ(after.size(), before.size()) << name;
    ++checkpoints;
  }
  EXPECT_EQ(checkpoints, 13);
}

TEST_F(QuantizeTest, CopiesWhatElseTheModelHas) {
  ASSERT_TRUE(QuantizeCheckpoint(Golden("tiny_bert"), Out("bert"), {}, Ignore).ok());
  auto source = Files(Golden("tiny_bert"));
  auto written = Files(Out("bert"));
  EXPECT_THAT(written, Contains(Key("1_Pooling/config.json")));
  for (const char* changed : {"config.json", "model.safetensors"}) {
    EXPECT_NE(written.at(changed), source.at(changed));
    source.erase(changed);
    written.erase(changed);
  }
  EXPECT_EQ(written, source);
  const auto config = ParseJsonObject("config.json", ReadFile(Out("bert") + "/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_NE(config->Find("quantization_config"), nullptr);
  EXPECT_EQ(
      config->AsObject()->size(),
      ParseJsonObject("c", ReadFile(Golden("tiny_bert") + "/config.json"))->AsObject()->size() + 1);
}

TEST_F(QuantizeTest, KeepsWhatTheArchitectureDoesNotComputeWith) {
  ASSERT_TRUE(QuantizeCheckpoint(Golden("tiny_bert"), Out("bert"), {}, Ignore).ok());
  const auto source = OpenOrDie(Golden("tiny_bert"));
  const auto written = OpenOrDie(Out("bert"));
  ASSERT_EQ(source->others().size(), 2u) << "the pooler";
  ASSERT_EQ(written->others().size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(written->others()[i].name, source->others()[i].name);
    EXPECT_EQ(Values(written->others()[i]), Values(source->others()[i]));
  }
}

TEST_F(QuantizeTest, SkippedModulesStayAsTheyAre) {
  ASSERT_TRUE(QuantizeCheckpoint(Golden("tiny_chat"), Out("skip"),
                                 {.skip_modules = {"layers.0.mlp", "q_proj"}}, Ignore)
                  .ok());
  const auto written = OpenOrDie(Out("skip"));
  EXPECT_FALSE(IsBitsAndBytes(written->Find("model.layers.0.mlp.up_proj.weight")->type));
  EXPECT_TRUE(IsBitsAndBytes(written->Find("model.layers.1.mlp.up_proj.weight")->type));
  EXPECT_FALSE(IsBitsAndBytes(written->Find("model.layers.1.self_attn.q_proj.weight")->type));
  const auto config = ParseJsonObject("config.json", ReadFile(Out("skip") + "/config.json"));
  const Value* quantization = config->Find("quantization_config");
  std::vector<std::string> modules;
  for (const Value& module : *quantization->Find("llm_int8_skip_modules")->AsArray()) {
    modules.push_back(*module.AsText());
  }
  EXPECT_THAT(modules, Contains("model.layers.0.mlp.gate_proj"));
  EXPECT_THAT(modules, Contains("model.layers.1.self_attn.q_proj"));
}

TEST_F(QuantizeTest, ShardsLoadAsOne) {
  const auto result =
      QuantizeCheckpoint(Golden("tiny_chat"), Out("shards"), {.max_shard_bytes = 20'000}, Ignore);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(Files(Out("shards")), Contains(Key("model.safetensors.index.json")));
  EXPECT_EQ(OpenOrDie(Out("shards"))->tensors().size(),
            OpenOrDie(Golden("tiny_chat"))->tensors().size());
}

TEST_F(QuantizeTest, TellsHowFarItIs) {
  int64_t last = 0, all = 0, calls = 0;
  ASSERT_TRUE(QuantizeCheckpoint(Golden("tiny_chat"), Out("m"), {}, [&](int64_t done, int64_t of) {
                EXPECT_GE(done, last);
                last = done;
                all = of;
                ++calls;
              }).ok());
  EXPECT_EQ(last, all);
  EXPECT_GT(calls, 10);
}

// --- runs that end badly ---

TEST_F(QuantizeTest, AKilledRunIsTakenUp) {
  const QuantizeOptions options = {.max_shard_bytes = 40'000, .commit_bytes = 1};
  ASSERT_TRUE(QuantizeCheckpoint(Golden("tiny_chat"), Out("whole"), options, Ignore).ok());
  const pid_t child = fork();
  if (child == 0) {
    int tensors = 0;
    (void)QuantizeCheckpoint(Golden("tiny_chat"), Out("killed"), options, [&](int64_t, int64_t) {
      if (++tensors == 15) _exit(7);
    });
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 7);
  ASSERT_TRUE(fs::exists(Out("killed.partial")));
  ASSERT_FALSE(fs::exists(Out("killed")));
  const absl::Status other =
      QuantizeCheckpoint(Golden("tiny_chat"), Out("killed"), {.group_size = 128}, Ignore).status();
  EXPECT_EQ(ReasonOf(other), "PARTIAL_NOT_OURS") << other;
  ASSERT_TRUE(fs::exists(Out("killed.partial"))) << "it is no one else's to remove";
  const auto result = QuantizeCheckpoint(Golden("tiny_chat"), Out("killed"), options, Ignore);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tensors_taken_up, 15);
  EXPECT_FALSE(fs::exists(Out("killed.partial")));
  EXPECT_EQ(Files(Out("killed")), Files(Out("whole")));
}

TEST_F(QuantizeTest, NeverRemovesWhatIsNotItsOwn) {
  const std::string diary = directory_.Write("x.partial/diary.txt", "dear diary");
  const absl::Status status =
      QuantizeCheckpoint(Golden("tiny_chat"), Out("x"), {}, Ignore).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(ReadFile(diary), "dear diary");
}

TEST_F(QuantizeTest, AFullDiskIsAClearErrorAndLeavesNothing) {
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {60'000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status =
      QuantizeCheckpoint(Golden("tiny_chat"), Out("full"), {}, Ignore).status();
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ReasonOf(status), "DISK_FULL");
  EXPECT_FALSE(fs::exists(Out("full")));
  EXPECT_FALSE(fs::exists(Out("full.partial")));
}

TEST_F(QuantizeTest, ANanIsRefusedByTensorAndIndexAndLeavesNothing) {
  fs::copy(Golden("stories260k"), Out("nan"), fs::copy_options::recursive);
  const auto source = OpenOrDie(Out("nan"));
  const TensorRef* tensor = source->Find("model.layers.1.mlp.down_proj.weight");
  ASSERT_NE(tensor, nullptr);
  const std::string file = ReadFile(Out("nan") + "/model.safetensors");
  const size_t at =
      file.find(std::string(reinterpret_cast<const char*>(tensor->data), 64)) + 2 * 177;
  std::fstream out(Out("nan") + "/model.safetensors", std::ios::in | std::ios::out);
  out.seekp(static_cast<std::streamoff>(at));
  out.write("\x00\x7e", 2);  // fp16's NaN
  out.close();
  const absl::Status status = QuantizeCheckpoint(Out("nan"), Out("x"), {}, Ignore).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("model.layers.1.mlp.down_proj.weight"),
            HasSubstr(absl::StrCat("[", 177 / tensor->cols(), ",", 177 % tensor->cols(), "]"))));
  EXPECT_FALSE(fs::exists(Out("x.partial")));
}

TEST_F(QuantizeTest, RefusesWhatItWouldOverwriteAndOptionsOutOfRange) {
  fs::create_directory(Out("there"));
  const auto run = [&](const std::string& out, const QuantizeOptions& options) {
    return QuantizeCheckpoint(Golden("tiny_chat"), Out(out), options, Ignore).status();
  };
  EXPECT_EQ(run("there", {}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(FieldOf(run("x", {.format = WeightFormat::kBf16})), "type");
  EXPECT_EQ(FieldOf(run("x", {.group_size = 48})), "group_size");
  EXPECT_EQ(FieldOf(run("x", {.format = WeightFormat::kInt8, .scale_search = true})),
            "scale_search");
  EXPECT_EQ(run("no/such/folder", {}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(QuantizeCheckpoint(Golden("nothing"), Out("x"), {}, Ignore).status().code(),
            absl::StatusCode::kNotFound);
  ASSERT_TRUE(run("nf4", {}).ok());
  const absl::Status other =
      QuantizeCheckpoint(Out("nf4"), Out("x"), {.format = WeightFormat::kFp4}, Ignore).status();
  EXPECT_EQ(FieldOf(other), "type");
  EXPECT_THAT(std::string(other.message()), HasSubstr("quantized already, to NF4"));
  EXPECT_FALSE(fs::exists(Out("x.partial")));
}

}  // namespace
}  // namespace nibble
