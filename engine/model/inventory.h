// The tensors an architecture needs and where each lies in device memory. An architecture asks by
// name and shape and holds what it gets as handles; memory comes later, so that asking alone is
// enough to plan. Knows no values: weight_loader fills the memory.
//
// Two arenas, so arranged that no array of a usual model is padded:
//   weights    := codes of every matrix (64-aligned), scales (16), nested scales (4), tables (4),
//                 vectors (4)
//   embeddings := the same of every table
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/loader/checkpoint.h"
#include "engine/memory/ledger.h"
#include "kernels/backend.h"

namespace nibble {

struct ModelOptions;

// The first matrix that the file holds in bitsandbytes' form; null: the file is not quantized.
const TensorRef* FirstQuantized(const Checkpoint& checkpoint);

// y = x·Wᵀ + b; bias may be absent.
struct Linear {
  const Weight* weight = nullptr;
  VectorView const* bias = nullptr;
};

// A matrix of the checkpoint and its place. `weight` is the handle.
struct PlacedMatrix {
  const TensorRef* tensor = nullptr;  // valid while the checkpoint lives
  MemoryKind kind = MemoryKind::kWeights;
  PackedSize size;
  // Offsets in the arena of `kind`.
  int64_t codes_at = 0, scales_at = 0, nested_at = 0, tables_at = 0;
  Weight weight;
};

// A norm's weight or a bias, and its place in the weights arena.
struct PlacedVector {
  const TensorRef* tensor = nullptr;
  int64_t at = 0;
  VectorView view;
};

// Handles stay valid for the inventory's life. Not thread-safe.
class Inventory {
 public:
  Inventory(const Checkpoint& checkpoint, const ModelOptions& options);
  Inventory(const Inventory&) = delete;
  Inventory& operator=(const Inventory&) = delete;

  // --- asked by an architecture; a tensor that is absent or of another shape is remembered ---

  // As the file is quantized, else in options.weights unless it is skipped.
  const Weight* Matrix(const std::string& name, int64_t n, int64_t k);
  // As the file is quantized, else as options.head says unless it is skipped. Head: a weight, which
  // a file may not hold in another form than head asks for; TokenTable: an embedding.
  const Weight* Head(const std::string& name, int64_t n, int64_t k);
  const Weight* TokenTable(const std::string& name, int64_t n, int64_t k);
  const Weight* Table(const std::string& name, int64_t n, int64_t k);  // 16 bits, an embedding
  const VectorView* Vector(const std::string& name, int64_t length);   // in the file's own type
  // `prefix`.weight and, if it has one, `prefix`.bias.
  Linear Projection(const std::string& prefix, int64_t n, int64_t k, bool has_bias);

  // About the first tensor that did not match: FAILED_PRECONDITION, or INVALID_ARGUMENT when it is
  // options.head that the file is against.
  const absl::Status& status() const { return status_; }

  // --- used by Model, in this order ---

  // Gives everything its offset and adds an item per tensor, and one for padding if there is any.
  void Place(const Backend& backend, MemoryPlan* plan);
  int64_t weights_bytes() const { return weights_bytes_; }
  int64_t embeddings_bytes() const { return embeddings_bytes_; }
  // Turns offsets into addresses: the handles become usable.
  void Bind(char* weights, char* embeddings);

  std::deque<PlacedMatrix>& matrices() { return matrices_; }
  const std::deque<PlacedVector>& vectors() const { return vectors_; }
  int64_t CheckpointBytes() const;  // what the tensors take in the file
  // Where the matrices' values lie in the mapped files, in the order of matrices().
  std::vector<std::span<const uint8_t>> MatrixBytes() const;
  // The checkpoint may go; only the handles are needed from now on.
  void ForgetCheckpoint();

 private:
  const TensorRef* Find(const std::string& name, std::initializer_list<int64_t> shape);
  const Weight* Add(const TensorRef* tensor, MemoryKind kind, const WeightSpec& spec);

  bool IsSkipped(const TensorRef& tensor) const;
  float Int8Threshold() const;  // the file's, or the usual one
  WeightSpec FormOf(const TensorRef& tensor) const;
  WeightSpec HeadFormOf(const TensorRef& tensor) const;

  const Checkpoint* checkpoint_;
  // n and k unset
  WeightSpec matrix_form_;
  WeightSpec head_form_;
  std::vector<std::string> skip_modules_;
  bool file_is_quantized_ = false;
  absl::Status status_;
  std::deque<PlacedMatrix> matrices_;
  std::deque<PlacedVector> vectors_;
  int64_t weights_bytes_ = 0;
  int64_t embeddings_bytes_ = 0;
};

}  // namespace nibble
