// Which inputs of which Embed requests the next encoding step takes. Pure planning: no I/O, no
// threads, no clock, no tokens' meaning.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine/request.h"

namespace nibble {

// Inputs share a step only when all of this is equal.
struct EncodeSettings {
  Pooling pooling = Pooling::kMean;
  bool normalize = true;
  int64_t dimensions = 0;

  friend bool operator==(const EncodeSettings&, const EncodeSettings&) = default;
};

// What packing knows of one Embed request.
struct Packable {
  EncodeSettings settings;
  std::vector<int64_t> input_rows;  // rows of each input, in order
  size_t next_input = 0;            // the first that no step has taken

  bool all_taken() const { return next_input == input_rows.size(); }
};

struct PackedInput {
  Packable* request = nullptr;
  size_t input = 0;
};

struct PackLimits {
  int64_t rows_wanted = 0;  // what the time budget allows; one input may be longer
  int64_t max_rows = 0;     // what the workspace allows
  int64_t max_inputs = 0;
};

// Thread rule: the engine thread. Requests leave the queue when all their inputs are taken.
// 1. A step takes inputs of one setting, a request after the other, one input each in turn, so a
//    request of one input does not wait for all of a request of a thousand.
// 2. The request at the head always gives at least one input, and goes to the end: nobody starves.
class EmbedQueue {
 public:
  void Add(Packable* request) { requests_.push_back(request); }
  void Remove(Packable* request);  // ignored when it has left
  bool empty() const { return requests_.empty(); }
  void Plan(const PackLimits& limits, std::vector<PackedInput>* taken);

 private:
  std::deque<Packable*> requests_;
  std::vector<Packable*> alike_;
};

}  // namespace nibble
