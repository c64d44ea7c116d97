// Llama checkpoints of any shape, written to a temporary folder: with values, or as a hole in the
// file that takes no disk and reads as zeros, so that a 70B's headers cost nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/support/temp_dir.h"

namespace nibble::testing {

struct LlamaShape {
  int64_t hidden = 64;
  int64_t ffn = 160;
  int64_t layers = 2;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 16;
  int64_t vocab = 512;
  int64_t positions = 512;
  bool tied = false;
  std::string dtype = "BF16";  // as safetensors spells it: F32, F16, BF16
};

class ModelFolder {
 public:
  // value(name, flat index) of every tensor; null: zeros that take no disk.
  using Value = std::function<float(const std::string&, int64_t)>;

  explicit ModelFolder(const LlamaShape& shape, const Value& value = nullptr);

  const std::string& path() const { return folder_.path(); }

 private:
  TempDir folder_;
};

}  // namespace nibble::testing
