// madvise(MADV_WILLNEED), some megabytes at a time.
#include "engine/loader/read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

constexpr size_t kAskBytes = size_t{4} << 20;

void Ask(std::span<const uint8_t> bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t aligned = begin / page * page;
  madvise(reinterpret_cast<void*>(aligned), bytes.size() + (begin - aligned), MADV_WILLNEED);
}

}  // namespace

ReadAhead::ReadAhead(std::vector<std::span<const uint8_t>> pieces)
    : pieces_(std::move(pieces)), thread_([this] { Run(); }) {}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ReadAhead::SetUsed(int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    used_ = bytes;
  }
  changed_.notify_all();
}

bool ReadAhead::Wait(int64_t asked) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || asked - used_ <= kWindow; });
  return !stopped_;
}

void ReadAhead::Run() {
  int64_t asked = 0;
  for (std::span<const uint8_t> piece : pieces_) {
    while (!piece.empty()) {
      const auto some = piece.first(std::min(piece.size(), kAskBytes));
      asked += static_cast<int64_t>(some.size());
      if (!Wait(asked)) return;
      Ask(some);
      piece = piece.subspan(some.size());
    }
  }
}

}  // namespace nibble
