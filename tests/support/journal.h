// What a server told its observer, for tests that wait for it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "service/observer.h"

namespace nibble::testing {

constexpr absl::Duration kPatience = absl::Seconds(60);  // for what must come; never slept through

// Thread-safe.
class Journal {
 public:
  Observer observer() {
    return {.on_request = [this](const RequestRecord& record) { Add(&requests_, record); },
            .on_event = [this](const ServerEvent& event) { Add(&events_, event); }};
  }
  // The record of a request id, once it is there.
  RequestRecord Await(const std::string& request_id) {
    absl::MutexLock lock(&mutex_);
    const RequestRecord* found = nullptr;
    const auto there = [&] {
      for (const RequestRecord& record : requests_) {
        if (record.request_id == request_id) found = &record;
      }
      return found != nullptr;
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience)) {
      ADD_FAILURE() << "no record of request " << request_id;
      return {};
    }
    return *found;
  }
  bool AwaitEvent(ServerEvent::Kind kind) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&] {
      for (const ServerEvent& event : events_) {
        if (event.kind == kind) return true;
      }
      return false;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
  }
  std::vector<RequestRecord> requests() {
    absl::MutexLock lock(&mutex_);
    return requests_;
  }

 private:
  template <typename T>
  void Add(std::vector<T>* list, const T& entry) {
    absl::MutexLock lock(&mutex_);
    list->push_back(entry);
  }

  absl::Mutex mutex_;
  std::vector<RequestRecord> requests_;
  std::vector<ServerEvent> events_;
};

}  // namespace nibble::testing
