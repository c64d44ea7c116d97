#include "engine/model/inventory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/model.h"
#include "engine/status.h"
#include "tests/engine/model/model_files.h"
#include "tests/engine/model/testing.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::LlamaShape;
using testing::ModelFolder;
using testing::TestBackend;

int64_t Bytes(const MemoryPlan& plan, const std::string& name) {
  for (const MemoryItem& item : plan.items) {
    if (item.name == name) return item.bytes;
  }
  return -1;
}

// models.md §11: what a matrix of n values takes in NF4 with double quantization.
int64_t DoubleQuantBytes(int64_t n) {
  const int64_t groups = (n + 63) / 64;
  return (n + 1) / 2 + groups + 4 * ((groups + 255) / 256) + 4;
}

TEST(Inventory, PlacesEveryArrayAlignedWithoutOverlap) {
  const ModelFolder folder(LlamaShape{});
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  Inventory inventory(**checkpoint, {});
  inventory.Matrix("model.layers.0.mlp.gate_proj.weight", 160, 64);
  inventory.Matrix("model.layers.0.mlp.down_proj.weight", 64, 160);
  inventory.Head("lm_head.weight", 512, 64);
  inventory.Table("model.embed_tokens.weight", 512, 64);
  inventory.Vector("model.norm.weight", 64);
  ASSERT_TRUE(inventory.status().ok()) << inventory.status();

  MemoryPlan plan;
  inventory.Place(*TestBackend("cpu"), &plan);
  EXPECT_EQ(plan.Total(MemoryKind::kWeights), inventory.weights_bytes());
  EXPECT_EQ(plan.Total(MemoryKind::kEmbeddings), inventory.embeddings_bytes());
  EXPECT_EQ(inventory.embeddings_bytes(), 512 * 64 * 2);

  std::map<int64_t, int64_t> ends;  // begin -> end, in the weights arena
  for (const PlacedMatrix& matrix : inventory.matrices()) {
    EXPECT_EQ(matrix.codes_at % 64, 0);
    EXPECT_EQ(matrix.scales_at % 16, 0);
    EXPECT_EQ(matrix.nested_at % 4, 0);
    if (matrix.kind != MemoryKind::kWeights) continue;
    ends[matrix.codes_at] = matrix.codes_at + matrix.size.codes;
    if (matrix.size.scales > 0) ends[matrix.scales_at] = matrix.scales_at + matrix.size.scales;
    if (matrix.size.nested > 0) ends[matrix.nested_at] = matrix.nested_at + matrix.size.nested;
  }
  for (const PlacedVector& vector : inventory.vectors()) {
    EXPECT_EQ(vector.at % 4, 0);
    ends[vector.at] = vector.at + vector.view.length * 2;
  }
  EXPECT_EQ(ends.size(), 2u * 3 + 1 + 1);
  int64_t last = 0;
  for (const auto& [begin, end] : ends) {
    EXPECT_GE(begin, last);
    last = end;
  }
  EXPECT_EQ(last, inventory.weights_bytes());
}

TEST(Inventory, TakesExactlyTheFormulasBytesForUsualShapes) {
  const ModelFolder folder(LlamaShape{});
  const auto checkpoint = Checkpoint::Open(folder.path());
  Inventory inventory(**checkpoint, {});
  inventory.Matrix("model.layers.0.mlp.gate_proj.weight", 160, 64);
  inventory.Matrix("model.layers.0.self_attn.q_proj.weight", 64, 64);
  inventory.Vector("model.norm.weight", 64);
  MemoryPlan plan;
  inventory.Place(*TestBackend("cpu"), &plan);
  EXPECT_EQ(Bytes(plan, "model.layers.0.mlp.gate_proj.weight"), DoubleQuantBytes(160 * 64));
  EXPECT_EQ(Bytes(plan, "model.layers.0.self_attn.q_proj.weight"), DoubleQuantBytes(64 * 64));
  EXPECT_EQ(Bytes(plan, "model.norm.weight"), 128);
  EXPECT_EQ(Bytes(plan, "padding"), -1) << "there is none";
}

TEST(Inventory, NamesPaddingAsAnItemOfItsOwn) {
  // Norms of 3 values in 16 bits leave 2 bytes before the next one.
  const ModelFolder folder(LlamaShape{.hidden = 3});
  const auto checkpoint = Checkpoint::Open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  Inventory inventory(**checkpoint, {});
  inventory.Vector("model.norm.weight", 3);
  inventory.Vector("model.layers.0.input_layernorm.weight", 3);
  MemoryPlan plan;
  inventory.Place(*TestBackend("cpu"), &plan);
  EXPECT_EQ(Bytes(plan, "padding"), 2);
  EXPECT_EQ(plan.Total(MemoryKind::kWeights), inventory.weights_bytes());
  EXPECT_EQ(inventory.weights_bytes(), 14);
}

TEST(Inventory, RemembersTheFirstTensorThatIsMissing) {
  const ModelFolder folder(LlamaShape{});
  const auto checkpoint = Checkpoint::Open(folder.path());
  Inventory inventory(**checkpoint, {});
  EXPECT_EQ(inventory.Matrix("model.layers.9.mlp.up_proj.weight", 160, 64), nullptr);
  EXPECT_EQ(inventory.Vector("model.norm.weight", 64), nullptr) << "nothing is looked up any more";
  EXPECT_EQ(inventory.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(inventory.status()), "MISSING_TENSOR");
  EXPECT_THAT(std::string(inventory.status().message()),
              HasSubstr("tensor \"model.layers.9.mlp.up_proj.weight\" is missing"));
}

TEST(Inventory, NamesBothShapesWhenTheyDiffer) {
  const ModelFolder folder(LlamaShape{});
  const auto checkpoint = Checkpoint::Open(folder.path());
  Inventory inventory(**checkpoint, {});
  EXPECT_EQ(inventory.Matrix("lm_head.weight", 64, 512), nullptr);
  EXPECT_EQ(inventory.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(inventory.status()), "SHAPE_MISMATCH");
  EXPECT_EQ(std::string(inventory.status().message()),
            "model.safetensors: tensor \"lm_head.weight\" has shape [512,64], config.json says "
            "[64,512]");
}

}  // namespace
}  // namespace nibble
