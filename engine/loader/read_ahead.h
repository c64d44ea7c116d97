// Has a model's files read before anyone waits for them. Asks Linux only; nothing is copied.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace nibble {

// A thread that asks for pieces of mapped files in order, at most kWindow bytes beyond what was
// used: all of a file at once could push out of the page cache what is needed first. Asking is a
// wish; whoever needs a byte that has not come waits for it as ever. The mappings must outlive it.
class ReadAhead {
 public:
  static constexpr int64_t kWindow = int64_t{256} << 20;

  explicit ReadAhead(std::vector<std::span<const uint8_t>> pieces);
  ~ReadAhead();  // asks for nothing more
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // So many bytes in all are no longer waited for. Thread-safe.
  void SetUsed(int64_t bytes);

 private:
  void Run();
  // Waits until `asked` is within the window; false when it is over.
  bool Wait(int64_t asked);

  const std::vector<std::span<const uint8_t>> pieces_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t used_ = 0;  // under the mutex, as the next
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace nibble
