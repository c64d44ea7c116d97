// The sequences of a step as kernels read them: arrays in device memory that keep their addresses
// and strides from step to step, so that a recorded step can be replayed with other contents.
#pragma once

#include <cstdint>

namespace nibble::cuda {

struct DeviceSequence {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t start = 0;  // position of first_row
  int32_t unused = 0;
};

struct RowPlace {
  int32_t sequence = 0;
  int32_t position = 0;
};

struct DeviceSequences {
  const DeviceSequence* sequences = nullptr;  // [num_sequences]
  // Of every row of the step; sequence -1: the row belongs to none.
  const RowPlace* places = nullptr;
  // [num_sequences, page_stride]: page of position p of sequence s is pages[s·page_stride + p/16].
  // Null for encoders.
  const int32_t* pages = nullptr;
  int32_t num_sequences = 0;
  int32_t num_rows = 0;     // of the step
  int32_t page_stride = 0;  // a power of two, at least the pages of the longest sequence
  int32_t max_rows = 0;     // of one sequence: 1 in a decode step
};

}  // namespace nibble::cuda
