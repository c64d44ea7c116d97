// The activations of one step: asked for when a model is made, given memory when it is loaded, and
// reused by every step. Buffers whose lives do not overlap may share memory.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "kernels/tensor.h"

namespace nibble {

// Handles stay valid for the workspace's life; they are usable after Bind.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // [rows, cols] fp32, 64-aligned.
  const Activations* Rows(int64_t rows, int64_t cols);
  // A host array of row numbers or positions.
  std::vector<int32_t>* Ids(int64_t count);

  // What is asked for after Rewind(mark) lies over what was asked for since Mark().
  int64_t Mark() const { return end_; }
  void Rewind(int64_t mark) { end_ = mark; }

  int64_t device_bytes() const { return bytes_; }
  int64_t host_bytes() const { return host_bytes_; }
  void Bind(char* data);

 private:
  struct Placed {
    int64_t at = 0;
    Activations rows;
  };
  std::deque<Placed> buffers_;
  std::deque<std::vector<int32_t>> ids_;
  int64_t end_ = 0;
  int64_t bytes_ = 0;  // the furthest end
  int64_t host_bytes_ = 0;
};

}  // namespace nibble
