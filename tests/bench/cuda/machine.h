// A device to measure on: a stream, rotating random memory, and a stopwatch by the rules of
// measuring: everything that is compared runs in this process, in turns, each as a graph of many
// launches after a copy that empties L2.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tape.h"

namespace nibble::bench {

// How much is measured. A rehearsal only shows that everything runs.
struct Effort {
  bool rehearsal = false;
  int launches = 24;                          // in one graph
  int rounds = 31;                            // of A, B, A, B …
  double race_ms = 2500;                      // fewer rounds rather than more time, but at least 7
  int64_t rotate_bytes = int64_t{256} << 20;  // distinct weights, several times L2
  int64_t flush_bytes = int64_t{192} << 20;   // copied before every timing
  int64_t copy_bytes = int64_t{1} << 30;      // of one copy when bandwidth is measured

  static Effort Rehearsal();
};

// One way of doing what is compared. `issue` does it once on a stream; `turn` counts, so that
// weights can rotate.
struct Contender {
  std::string name;
  std::function<absl::Status(int turn, cuda::Stream* stream)> issue;
};

struct Timing {
  double median_us = 0;  // of one launch
  double min_us = 0;
  double max_us = 0;
  std::vector<double> samples_us;  // by round
};

// samples of a ÷ those of b, round by round.
struct Ratio {
  double median = 0;
  double min = 0;
  double max = 0;
};
Ratio PairedRatio(const Timing& a, const Timing& b);

// A packed matrix of random codes and scales in device memory, several copies of it.
struct Copies {
  std::vector<Weight> weights;
  int64_t bytes = 0;  // of one
  const Weight& At(int turn) const { return weights[static_cast<size_t>(turn) % weights.size()]; }
};

// Thread rule: one thread. Owns what it hands out; memory goes back with Rewind or its end.
class Machine {
 public:
  static absl::StatusOr<std::unique_ptr<Machine>> Open(const Effort& effort);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine();

  const Effort& effort() const { return effort_; }
  const cuda::DeviceTraits& traits() const { return traits_; }
  cuda::Stream* stream() const { return stream_; }
  Backend& backend() const { return *backend_; }

  // Aborts when memory is short: a bench has nothing to say then.
  char* Allocate(int64_t bytes);
  char* AllocateZeroed(int64_t bytes);
  template <typename T>
  T* Make(int64_t count) {
    return reinterpret_cast<T*>(Allocate(count * static_cast<int64_t>(sizeof(T))));
  }
  // What was allocated here and not given back, and what the backend took for itself.
  int64_t AllocatedBytes() const;
  // What the driver says was taken since just before the backend was made.
  int64_t DriverBytes() const;
  // Memory allocated after Mark() goes back with Rewind(mark).
  size_t Mark() const { return memory_.size(); }
  void Rewind(size_t mark);

  enum class Content { kBytes, kHalves, kScales, kNormal };
  // Random bytes; finite 16-bit values of both signs below 1; fp32 in [0.01, 0.02); fp32 from N(0,
  // 1).
  void Fill(void* device, int64_t bytes, Content content);
  Activations RandomRows(int64_t rows, int64_t cols);
  Weight RandomWeight(const WeightSpec& spec);
  // The same at `data`, which has room for PlacedBytes and is 256-aligned.
  int64_t PlacedBytes(const WeightSpec& spec) const;
  Weight RandomWeightAt(char* data, const WeightSpec& spec);
  // At least `rotate_bytes` in all.
  Copies RandomCopies(const WeightSpec& spec);
  // Waits for the stream: the backend has streams of its own, which know nothing of it.
  void Finish();
  void Upload(void* device, const void* host, int64_t bytes);
  void Download(void* host, const void* device, int64_t bytes);

  // Every contender as a graph, in turns.
  absl::StatusOr<std::vector<Timing>> Race(std::span<const Contender> contenders);
  // Once, not timed.
  absl::Status RunOnce(const Contender& contender);
  // A device-to-device copy, read and written bytes counted, per second.
  absl::StatusOr<double> CopyBandwidth();

 private:
  Machine(const Effort& effort, cuda::DeviceTraits traits, std::unique_ptr<Backend> backend);
  absl::Status Prepare();
  absl::StatusOr<cuda::Graph*> Capture(const Contender& contender);
  absl::StatusOr<double> TimeMs(cuda::Graph* graph);

  Effort effort_;
  cuda::DeviceTraits traits_;
  std::unique_ptr<Backend> backend_;
  cuda::Stream* stream_ = nullptr;
  cuda::Event* begin_ = nullptr;
  cuda::Event* end_ = nullptr;
  struct Block {
    void* data;
    int64_t bytes;
  };
  std::vector<Block> memory_;
  int64_t free_at_start_ = 0;
  std::vector<char*> pools_;  // one for each Content
  int64_t pool_bytes_ = 0;
  int64_t taken_ = 0;  // of the pools, so that every fill differs
  char* flush_ = nullptr;
};

}  // namespace nibble::bench
