// A step's tape, its inputs and its results: written while operations are asked for, played when a
// result is wanted. Knows no operation.
// Thread rule: one thread, the engine's; ForgetGraphs by any.
//
// 1. What fails is remembered, nothing more of the step is issued, and Finish tells it; the next
//    step begins afresh.
// 2. When a tape has been played, the device has done it: host memory may be written again.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "kernels/cuda/graph_cache.h"
#include "kernels/cuda/own_blocks.h"
#include "kernels/cuda/owned.h"
#include "kernels/cuda/step_inputs.h"
#include "kernels/cuda/tape.h"

namespace nibble::cuda {

class StepRunner {
 public:
  // `memory` outlives it.
  StepRunner(int ordinal, OwnedStream stream, const OwnBlocks& memory);

  // To write on. Its first entry is the copy of the step's inputs.
  Tape* tape();
  // Plays the tape and waits.
  void Flush();
  void Fail(absl::Status status);
  // Flushes. Errors: INTERNAL, with what failed first since the last Finish.
  absl::Status Finish();
  bool failed() const { return !failure_.ok(); }

  // add(&inputs), after making room by a flush if need be; nothing if it does not fit at all.
  template <typename Add>
  auto AddInput(const Add& add) {
    auto added = add(&inputs_);
    if (added.has_value()) return added;
    Flush();
    return add(&inputs_);
  }

  // The first `bytes` of the results on the device, flushed and brought here; null: it failed.
  const char* FetchResults(int64_t bytes);
  char* results() const { return results_; }
  int64_t result_bytes() const { return result_bytes_; }
  // Flushes, and copies device memory out.
  void CopyToHost(void* host, const void* device, int64_t bytes);

  // No graph is replayed that was captured before.
  void ForgetGraphs() { graphs_are_old_ = true; }

  Stream* stream() const { return stream_.get(); }
  const StepInputs& inputs() const { return inputs_; }
  const Tape& written() const { return tape_; }
  const GraphCache& graphs() const { return graphs_; }

 private:
  absl::Status Play();

  const int ordinal_;
  const OwnedStream stream_;
  StepInputs inputs_;
  char* const inputs_device_;
  const char* const inputs_host_;
  char* const results_;
  const char* const results_host_;
  const int64_t result_bytes_;
  Tape tape_;
  GraphCache graphs_;
  std::atomic<bool> graphs_are_old_ = false;
  absl::Status failure_;
};

}  // namespace nibble::cuda
