// A place in line: by priority, then by arrival, and never behind for ever.
#pragma once

#include <cstdint>
#include <tuple>

#include "absl/time/time.h"
#include "engine/request.h"

namespace nibble {

// How long a request of one priority may be overtaken by the next higher one: after this much
// waiting it goes before every higher request that arrives later. A place is fixed at arrival, so
// the order is total and nobody starves.
inline constexpr absl::Duration kPriorityHeadStart = absl::Seconds(10);

struct Rank {
  absl::Time place = absl::InfiniteFuture();  // arrival, moved forward by priority
  uint64_t arrival = 0;                       // of the request, counted
  int32_t index = 0;                          // which of its answers

  // Smaller goes first.
  friend bool operator<(const Rank& a, const Rank& b) {
    return std::tie(a.place, a.arrival, a.index) < std::tie(b.place, b.arrival, b.index);
  }
};

inline Rank MakeRank(absl::Time now, Priority priority, uint64_t arrival, int32_t index) {
  return {now - static_cast<int64_t>(priority) * kPriorityHeadStart, arrival, index};
}

}  // namespace nibble
