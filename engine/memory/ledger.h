// Every byte that the engine takes has an owner, a kind and a name, and is counted before it is
// allocated. A budget per device: what does not fit is refused with the whole breakdown.
// Thread-safe: loading threads reserve while the metrics thread reads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nibble {

enum class MemoryKind : uint8_t {
  kWeights,
  kEmbeddings,
  kKvCache,
  kWorkspace,
  kGraphs,
  kTokenizer,
  kOther
};
inline constexpr int kNumMemoryKinds = 7;
const char* Name(MemoryKind kind);  // the `kind` label: weights, embeddings, kv_cache, …
// Tokenizers and lists are the host's whatever the device; they count in its budget all the same.
constexpr bool IsHostMemory(MemoryKind kind) {
  return kind == MemoryKind::kTokenizer || kind == MemoryKind::kOther;
}

struct MemoryItem {
  MemoryKind kind = MemoryKind::kOther;
  std::string name;  // "model.layers.0.self_attn.q_proj.weight", "kv pages", "activations"
  int64_t bytes = 0;
};

// What a model will take, computed from its config and tensor headers alone. Loading allocates
// exactly this.
struct MemoryPlan {
  std::vector<MemoryItem> items;
  int64_t Total() const;
  int64_t Total(MemoryKind kind) const;
  // "weights 111.5 MB, kv_cache 377.5 MB, …": for messages.
  std::string Breakdown() const;
};

class Ledger;

// Bytes held in a ledger; gives them back when it dies. Move-only.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();
  int64_t bytes() const;

 private:
  friend class Ledger;
  Ledger* ledger_ = nullptr;
  std::string owner_;
  std::array<int64_t, kNumMemoryKinds> bytes_{};
};

class Ledger {
 public:
  Ledger(std::string device, int64_t budget_bytes);

  // Counts a whole plan, or nothing.
  // Errors: FAILED_PRECONDITION with needed, free and the breakdown when it does not fit.
  absl::StatusOr<Reservation> Reserve(std::string_view owner, const MemoryPlan& plan);

  struct Entry {
    std::string owner;  // a model's name; "" for the server itself
    MemoryKind kind;
    int64_t bytes;
  };
  std::vector<Entry> Snapshot() const;  // sorted by owner, then kind; no zero entries
  const std::string& device() const { return device_; }
  int64_t budget_bytes() const { return budget_bytes_; }
  int64_t used_bytes() const;

 private:
  friend class Reservation;
  void Release(const Reservation& reservation);

  const std::string device_;
  const int64_t budget_bytes_;
  // Not absl::Mutex: ThreadSanitizer does not see into the distribution's.
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, MemoryKind>, int64_t> bytes_ ABSL_GUARDED_BY(mutex_);
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace nibble
