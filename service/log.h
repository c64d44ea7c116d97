// Structured logs: one JSON object per line on stderr, written by a thread of its own so that no
// caller waits for a slow pipe. Never a prompt, never an answer.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/json_line.h"

namespace nibble {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

// Thread-safe. Bounded: when more than `capacity` lines wait, further ones are counted and dropped,
// and the count is logged when there is room again.
class Log {
 public:
  explicit Log(std::FILE* out = stderr, LogLevel least = LogLevel::kInfo, size_t capacity = 4096);
  ~Log();  // writes what waits
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // {"time":"…Z","level":"info","event":event, fields…}
  void Write(LogLevel level, std::string_view event, const JsonLine& fields = {});
  // Waits until everything written so far is out.
  void Flush();

 private:
  void Run();

  std::FILE* const out_;
  const LogLevel least_;
  const size_t capacity_;
  absl::Mutex mutex_;
  std::vector<std::string> waiting_ ABSL_GUARDED_BY(mutex_);
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nibble
