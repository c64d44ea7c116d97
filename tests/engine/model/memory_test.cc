// What the process really holds, from /proc: the ledger's claim, and the bound on a load's peak.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "engine/model/model.h"
#include "tests/engine/model/model_files.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using testing::LlamaShape;
using testing::ModelFolder;
using testing::TestBackend;

// Bytes of this process's memory that no file backs.
int64_t AnonymousBytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  std::string word;
  while (file >> word) {
    if (word != "Anonymous:") continue;
    int64_t kilobytes = 0;
    file >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

// Whether malloc is the C library's: a sanitizer's keeps freed memory and shadows all of it.
bool PlainMalloc() {
  return dlsym(RTLD_DEFAULT, "__asan_init") == nullptr &&
         dlsym(RTLD_DEFAULT, "__tsan_init") == nullptr;
}

// About 70 MB held, of which half is KV; its file is a hole and takes no disk.
const LlamaShape kShape = {.hidden = 512,
                           .ffn = 2048,
                           .layers = 10,
                           .heads = 8,
                           .kv_heads = 4,
                           .head_dim = 64,
                           .vocab = 16384,
                           .positions = 2048,
                           .dtype = "F32"};

struct Usage {
  int64_t ledger = 0;
  int64_t held = 0;  // anonymous memory gained by the load
  int64_t left = 0;  // and what of it outlives the model
  int64_t peak = 0;  // the most seen while loading
};

Usage LoadAndUnload(const std::string& path, Backend* backend) {
  Usage usage;
  Ledger ledger("cpu", int64_t{1} << 40);
  const int64_t before = AnonymousBytes();
  const auto watch = [&](const LoadProgress&) {
    usage.peak = std::max(usage.peak, AnonymousBytes() - before);
  };
  {
    auto checkpoint = Checkpoint::Open(path);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    const auto model =
        Model::Load("m", **checkpoint, {}, {}, backend, &ledger, watch, [] { return false; });
    EXPECT_TRUE(model.ok()) << model.status();
    checkpoint->reset();
    usage.held = AnonymousBytes() - before;
    usage.ledger = ledger.used_bytes();
  }
  usage.left = AnonymousBytes() - before;
  return usage;
}

TEST(ModelMemory, ChangesByTheLedgersSumWithinOnePercent) {
  if (!PlainMalloc()) GTEST_SKIP() << "a sanitizer's malloc holds memory of its own";
  const ModelFolder folder(kShape);
  const auto backend = TestBackend("cpu", 2);
  LoadAndUnload(folder.path(), backend.get());  // thread stacks and malloc's arenas, once
  const Usage usage = LoadAndUnload(folder.path(), backend.get());
  const auto one_percent = static_cast<double>(usage.ledger) / 100;
  EXPECT_GT(usage.ledger, 50'000'000);
  EXPECT_NEAR(static_cast<double>(usage.held), static_cast<double>(usage.ledger), one_percent);
  EXPECT_NEAR(static_cast<double>(usage.left), 0, one_percent);
}

TEST(ModelMemory, CountsATokenizerWithinOnePercentOfTheWhole) {
  if (!PlainMalloc()) GTEST_SKIP() << "a sanitizer's malloc holds memory of its own";
  const auto backend = TestBackend("cpu", 2);
  const std::string path = testing::GoldenPath("models/tiny_chat");
  LoadAndUnload(path, backend.get());
  const Usage usage = LoadAndUnload(path, backend.get());
  // The whole is so small here that malloc's own pages show: up to 32 of them are let pass.
  EXPECT_NEAR(static_cast<double>(usage.held), static_cast<double>(usage.ledger),
              static_cast<double>(usage.ledger) / 100 + 32 * 4096);
}

// In fp32.
int64_t LargestMatrix(const std::string& path) {
  int64_t largest = 0;
  for (const TensorRef& tensor : (*Checkpoint::Open(path))->tensors()) {
    largest = std::max(largest, tensor.NumValues() * 4);
  }
  return largest;
}

// Their tokenizers are megabytes of small strings, so this is what tests MemoryBytes.
TEST(ModelMemory, OfTheRealModelsIsTheLedgersSumWithinOnePercent) {
  if (!PlainMalloc()) GTEST_SKIP() << "a sanitizer's malloc holds memory of its own";
  if (!testing::SmolLm2()) GTEST_SKIP() << "NIBBLE_TEST_MODELS is not set";
  const auto backend = TestBackend("cpu", 2);
  for (const std::string& path : {*testing::SmolLm2(), *testing::MiniLm()}) {
    LoadAndUnload(path, backend.get());
    const Usage usage = LoadAndUnload(path, backend.get());
    const auto one_percent = static_cast<double>(usage.ledger) / 100;
    EXPECT_NEAR(static_cast<double>(usage.held), static_cast<double>(usage.ledger), one_percent);
    EXPECT_NEAR(static_cast<double>(usage.left), 0, one_percent) << path;
    EXPECT_LE(usage.peak, usage.ledger + LargestMatrix(path) + (64 << 20)) << path;
  }
}

TEST(ModelMemory, NeverPassesTheBoundWhileLoading) {
  if (!PlainMalloc()) GTEST_SKIP() << "a sanitizer's malloc holds memory of its own";
  const ModelFolder folder(kShape);
  const auto backend = TestBackend("cpu", 4);
  const Usage usage = LoadAndUnload(folder.path(), backend.get());
  const int64_t largest = kShape.vocab * kShape.hidden * 4;
  EXPECT_GT(usage.peak, usage.ledger / 2);
  EXPECT_LE(usage.peak, usage.ledger + largest + (64 << 20));
}

}  // namespace
}  // namespace nibble
