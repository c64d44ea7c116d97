// mmap, huge pages, population.
#include "kernels/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_set.h"

namespace nibble {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;
constexpr int64_t kMaxBytes = int64_t{1} << 46;  // more than any address space holds

int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

void Unmap(void* data, int64_t bytes) {
  munmap(data, static_cast<size_t>(RoundUp(bytes, kPageBytes)));
}

char* Map(int64_t bytes) {
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : static_cast<char*>(data);
}

// Maps a huge page more than needed and gives back what lies before and after the aligned part.
char* MapHugeAligned(int64_t bytes) {
  char* data = Map(bytes + kHugePageBytes);
  if (data == nullptr) return nullptr;
  const int64_t head =
      -static_cast<int64_t>(reinterpret_cast<uintptr_t>(data)) & (kHugePageBytes - 1);
  if (head > 0) munmap(data, static_cast<size_t>(head));
  if (head < kHugePageBytes) {
    munmap(data + head + bytes, static_cast<size_t>(kHugePageBytes - head));
  }
  madvise(data + head, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish; refusal is harmless
  return data + head;
}

// Faults every page in. 0, or errno when there is no memory; a kernel before 5.14 is asked by
// writing.
int PopulatePiece(char* data, int64_t bytes) {
  if (madvise(data, static_cast<size_t>(bytes), MADV_POPULATE_WRITE) == 0) return 0;
  if (errno != EINVAL) return errno;
  for (int64_t i = 0; i < bytes; i += kPageBytes) static_cast<volatile char*>(data)[i] = 0;
  return 0;
}

// Likewise on every CPU that we have: zeroing is as slow as memory is for one of them.
int Populate(char* data, int64_t bytes) {
  constexpr int64_t kPiece = int64_t{64} << 20;
  std::atomic<int64_t> next = 0;
  std::atomic<int> error = 0;
  const auto work = [&] {
    for (int64_t at = next.fetch_add(kPiece); at < bytes; at = next.fetch_add(kPiece)) {
      const int failed = PopulatePiece(data + at, std::min(kPiece, bytes - at));
      if (failed != 0) error = failed;
      if (error != 0) return;
    }
  };
  const int64_t threads = std::min<int64_t>(DefaultThreads(), RoundUp(bytes, kPiece) / kPiece);
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return error;
}

}  // namespace

absl::StatusOr<Buffer> AllocateResident(int64_t bytes) {
  if (bytes == 0) return Buffer();
  const auto refuse = [&](const char* why) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cpu memory: cannot allocate ", bytes, " bytes: ", why));
  };
  if (bytes < 0 || bytes > kMaxBytes) return refuse("impossible size");
  const int64_t rounded = RoundUp(bytes, kPageBytes);
  char* data = rounded >= 2 * kHugePageBytes ? MapHugeAligned(rounded) : Map(rounded);
  if (data == nullptr) return refuse(std::strerror(errno));
  if (const int error = Populate(data, rounded); error != 0) {
    Unmap(data, bytes);
    return refuse(std::strerror(error));
  }
  return Buffer(data, bytes, Unmap);
}

}  // namespace nibble
