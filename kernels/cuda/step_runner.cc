// Write, play, wait.
#include "kernels/cuda/step_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nibble::cuda {

StepRunner::StepRunner(int ordinal, OwnedStream stream, const OwnBlocks& memory)
    : ordinal_(ordinal),
      stream_(std::move(stream)),
      inputs_(memory.inputs_host, memory.inputs, memory.sizes.input_bytes),
      inputs_device_(memory.inputs),
      inputs_host_(memory.inputs_host),
      results_(memory.results),
      results_host_(memory.results_host),
      result_bytes_(memory.sizes.result_bytes) {}

Tape* StepRunner::tape() {
  if (tape_.empty()) tape_.AddCopy(inputs_device_, inputs_host_, kSlotBytes);
  return &tape_;
}

void StepRunner::Fail(absl::Status status) {
  if (failure_.ok()) failure_ = std::move(status);
}

absl::Status StepRunner::Play() {
  if (absl::Status status = UseDevice(ordinal_); !status.ok()) return status;
  if (graphs_are_old_.exchange(false)) graphs_.Clear();
  tape_.ResizeFirstCopy(std::max(inputs_.used(), kSlotBytes));
  const absl::Status played = graphs_.Play(tape_, stream_.get());
  // Also after a failure: what was issued still reads the inputs.
  const absl::Status done = Synchronize(stream_.get());
  return played.ok() ? done : played;
}

void StepRunner::Flush() {
  if (!tape_.empty() && !failed()) Fail(Play());
  tape_.Clear();
  inputs_.Clear();
}

absl::Status StepRunner::Finish() {
  Flush();
  absl::Status failure = std::exchange(failure_, absl::OkStatus());
  if (failure.ok() || absl::IsInternal(failure)) return failure;
  return absl::InternalError(failure.message());
}

const char* StepRunner::FetchResults(int64_t bytes) {
  tape()->AddCopy(const_cast<char*>(results_host_), results_, bytes);
  Flush();
  return failed() ? nullptr : results_host_;
}

void StepRunner::CopyToHost(void* host, const void* device, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += result_bytes_) {
    const int64_t size = std::min(result_bytes_, bytes - at);
    tape()->AddCopy(const_cast<char*>(results_host_), static_cast<const char*>(device) + at, size);
    Flush();
    if (failed()) return;
    std::memcpy(static_cast<char*>(host) + at, results_host_, static_cast<size_t>(size));
  }
}

}  // namespace nibble::cuda
