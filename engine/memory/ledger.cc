// The arithmetic of the memory budget: sums that cannot overflow, whole plans or nothing.
#include "engine/memory/ledger.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// Plans come from untrusted headers, so a sum stops at the largest number instead of wrapping;
// no budget holds that much.
int64_t SaturatingAdd(int64_t a, int64_t b) { return a > kMax - b ? kMax : a + b; }

size_t Index(MemoryKind kind) { return static_cast<size_t>(kind); }

std::array<int64_t, kNumMemoryKinds> TotalsByKind(const MemoryPlan& plan) {
  std::array<int64_t, kNumMemoryKinds> totals{};
  for (const MemoryItem& item : plan.items) {
    if (item.bytes < 0) {
      std::fprintf(stderr, "memory plan: \"%s\" has %lld bytes\n", item.name.c_str(),
                   static_cast<long long>(item.bytes));
      std::abort();
    }
    int64_t& total = totals[Index(item.kind)];
    total = SaturatingAdd(total, item.bytes);
  }
  return totals;
}

std::string Megabytes(int64_t bytes) {
  return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace

const char* Name(MemoryKind kind) {
  static constexpr std::array<const char*, kNumMemoryKinds> kNames = {
      "weights", "embeddings", "kv_cache", "workspace", "graphs", "tokenizer", "other"};
  return kNames[Index(kind)];
}

int64_t MemoryPlan::Total() const {
  int64_t total = 0;
  for (const int64_t bytes : TotalsByKind(*this)) total = SaturatingAdd(total, bytes);
  return total;
}

int64_t MemoryPlan::Total(MemoryKind kind) const { return TotalsByKind(*this)[Index(kind)]; }

std::string MemoryPlan::Breakdown() const {
  const auto totals = TotalsByKind(*this);
  std::string text;
  for (size_t kind = 0; kind < totals.size(); ++kind) {
    if (totals[kind] == 0) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", Name(static_cast<MemoryKind>(kind)), " ",
                    Megabytes(totals[kind]));
  }
  return text.empty() ? "nothing" : text;
}

Reservation::Reservation(Reservation&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)),
      owner_(std::move(other.owner_)),
      bytes_(std::exchange(other.bytes_, {})) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  Reservation taken(std::move(other));
  std::swap(ledger_, taken.ledger_);
  std::swap(owner_, taken.owner_);
  std::swap(bytes_, taken.bytes_);
  return *this;  // `taken` dies with what this one held
}

Reservation::~Reservation() {
  if (ledger_ != nullptr) ledger_->Release(*this);
}

int64_t Reservation::bytes() const {
  int64_t total = 0;
  for (const int64_t bytes : bytes_) total += bytes;
  return total;
}

Ledger::Ledger(std::string device, int64_t budget_bytes)
    : device_(std::move(device)), budget_bytes_(std::max<int64_t>(budget_bytes, 0)) {}

absl::StatusOr<Reservation> Ledger::Reserve(std::string_view owner, const MemoryPlan& plan) {
  const int64_t needed = plan.Total();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (needed > budget_bytes_ - used_) {
    return Error(
        absl::StatusCode::kFailedPrecondition, "OUT_OF_MEMORY_BUDGET",
        absl::StrCat(owner.empty() ? "the device itself" : Str(owner), " needs ", Megabytes(needed),
                     " on ", device_, ", ", Megabytes(budget_bytes_ - used_), " of ",
                     Megabytes(budget_bytes_), " are free: ", plan.Breakdown()));
  }
  Reservation reservation;
  reservation.ledger_ = this;
  reservation.owner_ = Str(owner);
  reservation.bytes_ = TotalsByKind(plan);
  for (size_t kind = 0; kind < reservation.bytes_.size(); ++kind) {
    const int64_t bytes = reservation.bytes_[kind];
    if (bytes > 0) bytes_[{reservation.owner_, static_cast<MemoryKind>(kind)}] += bytes;
  }
  used_ += needed;
  return reservation;
}

void Ledger::Release(const Reservation& reservation) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t kind = 0; kind < reservation.bytes_.size(); ++kind) {
    const int64_t bytes = reservation.bytes_[kind];
    if (bytes == 0) continue;
    const auto held = bytes_.find({reservation.owner_, static_cast<MemoryKind>(kind)});
    held->second -= bytes;
    if (held->second == 0) bytes_.erase(held);
    used_ -= bytes;
  }
}

std::vector<Ledger::Entry> Ledger::Snapshot() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Entry> entries;
  entries.reserve(bytes_.size());
  for (const auto& [key, bytes] : bytes_) entries.push_back({key.first, key.second, bytes});
  return entries;
}

int64_t Ledger::used_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

}  // namespace nibble
