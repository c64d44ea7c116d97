// A step's work for the device as bytes in order: kernels, products, copies. Operations write on a
// tape; it is played when a result is wanted. Two steps that wrote the same bytes do the same, so a
// tape is also the key under which its CUDA graph is kept (graph_cache.h).
// Thread rule: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"

namespace nibble::cuda {

// tape   := entry*
// entry  := kind (8 bytes), size of the entry (8), body, zeros to a multiple of 16
// kernel := KernelCall's fields, number of arguments, (offset, size)*, the arguments' bytes; each
//           argument begins at a multiple of 16 of the body
class Tape {
 public:
  void AddGemm(const GemmCall& call);
  // Either side may be page-locked host memory.
  void AddCopy(void* to, const void* from, int64_t bytes);
  void AddFill(void* device, uint8_t value, int64_t bytes);

  // The first entry, a copy, gets another size: what a step uploads is known when it ends.
  void ResizeFirstCopy(int64_t bytes);

  bool empty() const { return bytes_.empty(); }
  size_t num_entries() const { return num_entries_; }
  // Forgets everything and keeps its memory.
  void Clear();
  // Issues every entry in order.
  absl::Status Play(Stream* stream) const;

  uint64_t Hash() const;
  friend bool operator==(const Tape& a, const Tape& b) { return a.bytes_ == b.bytes_; }

 private:
  friend void AppendKernel(Tape* tape, const KernelCall& call, const void* const* args,
                           const size_t* sizes, size_t num_args);
  enum class Kind : uint64_t { kKernel, kGemm, kCopy, kFill };
  struct CopyBody {
    void* to;
    const void* from;
    int64_t bytes;
    int64_t value;  // of a fill
  };
  // Room for an entry's body, zeroed.
  std::byte* Append(Kind kind, size_t body_bytes);

  std::vector<std::byte> bytes_;
  size_t num_entries_ = 0;
};

}  // namespace nibble::cuda
