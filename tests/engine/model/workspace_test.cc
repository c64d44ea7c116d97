#include "engine/model/workspace.h"

#include <gtest/gtest.h>

#include <vector>

namespace nibble {
namespace {

TEST(Workspace, AlignsEveryBufferTo64Bytes) {
  Workspace workspace;
  const Activations* odd = workspace.Rows(3, 5);  // 60 bytes
  const Activations* next = workspace.Rows(1, 1);
  EXPECT_EQ(workspace.device_bytes(), 128);
  alignas(64) char memory[128];
  workspace.Bind(memory);
  EXPECT_EQ(reinterpret_cast<char*>(odd->data), memory);
  EXPECT_EQ(reinterpret_cast<char*>(next->data), memory + 64);
  EXPECT_EQ(odd->stride, 5);
}

TEST(Workspace, TakesTheLargerOfTwoThatShareMemory) {
  Workspace workspace;
  const Activations* kept = workspace.Rows(1, 16);
  const int64_t mark = workspace.Mark();
  const Activations* wide = workspace.Rows(1, 64);
  workspace.Rewind(mark);
  const Activations* narrow = workspace.Rows(1, 32);
  EXPECT_EQ(workspace.device_bytes(), 64 + 256);
  alignas(64) char memory[320];
  workspace.Bind(memory);
  EXPECT_EQ(wide->data, narrow->data);
  EXPECT_EQ(kept->data + 16, wide->data);
}

TEST(Workspace, CountsHostIds) {
  Workspace workspace;
  EXPECT_EQ(workspace.Ids(10)->size(), 10u);
  workspace.Ids(5);
  EXPECT_EQ(workspace.host_bytes(), 60);
  EXPECT_EQ(workspace.device_bytes(), 0);
}

}  // namespace
}  // namespace nibble
