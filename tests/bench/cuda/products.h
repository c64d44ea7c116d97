// x·Wᵀ in every way that is compared: Nibble's by its table or with one path forced, cuBLAS in
// bf16, bitsandbytes'. All write fp32, but for bitsandbytes' fused kernel (bf16).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_table.h"
#include "tests/bench/cuda/bitsandbytes.h"
#include "tests/bench/cuda/figures.h"
#include "tests/bench/cuda/machine.h"

namespace nibble::bench {

struct Shape {
  int64_t n = 0;
  int64_t k = 0;
};

// A table that takes `path` wherever it can, for 16-bit and INT8 weights own kernels or never.
cuda::MatMulTable Forced(cuda::MatMulPath path, bool own_kernels);

// Thread rule: one thread. The machine outlives it, and takes its memory back with Rewind.
class Products {
 public:
  Products(Machine* machine, int64_t max_rows, int64_t max_k);

  // With the GPU's own table unless `table` is given.
  Contender Ours(std::string name, const Copies& weights, const Activations& x, float* out,
                 const cuda::MatMulTable* table = nullptr, bool batch_invariant = false) const;
  // compute=fp32: every product exact.
  Contender OursExact(const Copies& weights, const Activations& x, float* out) const;
  // weights: bf16, [N, K]. x: [M, K] bf16.
  Contender Cublas(const Copies& weights, const void* x, int64_t m, float* out) const;
  Contender Peer(const BitsAndBytes& peer, std::vector<PeerMatrix> weights, const void* x,
                 int64_t m, float* out, void* scratch) const;
  std::vector<PeerMatrix> RandomPeers(const Shape& shape) const;
  // x as bf16, rounded by the host: [M, K].
  const void* AsBf16(const Activations& x) const;
  const cuda::MatMulTable& table() const { return table_; }

 private:
  cuda::MatMulSetup Setup(bool exact) const;

  Machine* machine_;
  const cuda::MatMulTable& table_;
  cuda::DeviceTables tables_;
  char* scratch_[2];  // by exact
  int64_t scratch_bytes_[2];
};

// Speed, then exactness and accuracy, then the table that the GPU should have.
void MeasureProducts(Machine* machine, const BitsAndBytes* peer, double copy_bandwidth,
                     Figures* figures);
void MeasureExactness(Machine* machine, const BitsAndBytes* peer, double copy_bandwidth,
                      Figures* figures);
void PrintTable(Machine* machine);

}  // namespace nibble::bench
