// A stack of buffers whose height is remembered.
#include "engine/model/workspace.h"

#include <algorithm>

namespace nibble {

const Activations* Workspace::Rows(int64_t rows, int64_t cols) {
  constexpr int64_t kAlignment = 64;
  const int64_t bytes = rows * cols * static_cast<int64_t>(sizeof(float));
  buffers_.push_back({end_, {nullptr, rows, cols, cols}});
  end_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  bytes_ = std::max(bytes_, end_);
  return &buffers_.back().rows;
}

std::vector<int32_t>* Workspace::Ids(int64_t count) {
  ids_.emplace_back(static_cast<size_t>(count));
  host_bytes_ += count * static_cast<int64_t>(sizeof(int32_t));
  return &ids_.back();
}

void Workspace::Bind(char* data) {
  for (Placed& buffer : buffers_) buffer.rows.data = reinterpret_cast<float*>(data + buffer.at);
}

}  // namespace nibble
