#include "service/log.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace nibble {
namespace {

constexpr const char* kLevels[] = {"debug", "info", "warning", "error"};

}  // namespace

Log::Log(std::FILE* out, LogLevel least, size_t capacity)
    : out_(out), least_(least), capacity_(capacity), thread_([this] { Run(); }) {}

Log::~Log() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void Log::Write(LogLevel level, std::string_view event, const JsonLine& fields) {
  if (level < least_) return;
  JsonLine head;
  head.Add("time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()));
  head.Add("level", kLevels[static_cast<size_t>(level)]);
  head.Add("event", event);
  std::string line = head.Finish();
  const std::string rest = fields.Finish();
  if (rest.size() > 2) {
    line.back() = ',';
    line.append(rest, 1);
  }
  line += '\n';
  absl::MutexLock lock(&mutex_);
  if (waiting_.size() >= capacity_) {
    ++dropped_;
    return;
  }
  waiting_.push_back(std::move(line));
}

void Log::Flush() {
  absl::MutexLock lock(&mutex_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return waiting_.empty() && !writing_;
  };
  mutex_.Await(absl::Condition(&idle));
}

void Log::Run() {
  std::vector<std::string> lines;
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !waiting_.empty() || stopping_;
  };
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      mutex_.Await(absl::Condition(&wanted));
      if (waiting_.empty()) return;
      lines.swap(waiting_);
      if (dropped_ > 0) {
        lines.push_back(absl::StrCat(
            "{\"level\":\"warning\",\"event\":\"log_lines_dropped\",\"count\":", dropped_, "}\n"));
        dropped_ = 0;
      }
      writing_ = true;
    }
    for (const std::string& line : lines) std::fwrite(line.data(), 1, line.size(), out_);
    std::fflush(out_);
    lines.clear();
  }
}

}  // namespace nibble
