// A checkpoint written out again in bitsandbytes' form, so that transformers, peft and we load it.
// Streams: what is held in memory is the largest matrix in fp32 and some megabytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/weight.h"

namespace nibble {

struct QuantizeOptions {
  WeightFormat format = WeightFormat::kNf4;  // kNf4, kFp4 or kInt8
  int32_t group_size = 64;                   // 4 bits
  bool double_quant = true;                  // 4 bits
  bool scale_search = false;                 // 4 bits; see FourBitForm
  // Linear layers that keep 16 bits, as ModelOptions::skip_modules.
  std::vector<std::string> skip_modules = {"lm_head"};
  int num_threads = 1;
  int64_t max_shard_bytes = 5'000'000'000;
  int64_t commit_bytes = 64 << 20;  // of work that a kill may cost
};

struct QuantizeResult {
  int64_t matrices = 0;           // quantized by this run or an earlier one
  int64_t tensors_taken_up = 0;   // which an earlier, killed run had written
  int64_t source_bytes = 0;       // of all tensors
  int64_t destination_bytes = 0;  // of the files of tensors
};

// source: as Checkpoint::Open. A source that is quantized already keeps its bits: `format` must be
// its own. Writes `destination`.partial and renames it at the end. An error removes it; a killed
// run leaves it, and the next run with the same source and options goes on where it was.
// progress(done, all): bytes of the source's tensors; called on this thread.
// Errors: Checkpoint::Open's; INVALID_ARGUMENT (an option by its field; a NaN or infinity by tensor
// and index), ALREADY_EXISTS (the destination), FAILED_PRECONDITION (a .partial that is another's),
// RESOURCE_EXHAUSTED (disk full), UNIMPLEMENTED (a tokenizer that has no Hugging Face form).
absl::StatusOr<QuantizeResult> QuantizeCheckpoint(
    const std::string& source, const std::string& destination, const QuantizeOptions& options,
    const std::function<void(int64_t done, int64_t all)>& progress);

}  // namespace nibble
