// Failures, queues, and the work itself.
#include "tests/support/cuda_emulator/fake_world.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/support/cuda_emulator/fake_gemm.h"
#include "tests/support/cuda_emulator/grid.h"

namespace nibble::cuda::fake {
namespace {

constexpr const char* kNames[] = {
    "cudaSetDevice",          "cudaSetDevice",
    "cudaMemGetInfo",         "cudaMalloc",
    "cudaHostAlloc",          "cudaStreamCreateWithFlags",
    "cudaStreamSynchronize",  "cudaEventCreate",
    "cudaEventRecord",        "cudaStreamWaitEvent",
    "cudaEventElapsedTime",   "cudaMemcpyAsync",
    "cudaMemsetAsync",        "cudaLaunchKernelExC",
    "cublasSetWorkspace",     "cublasGemmEx",
    "cudaStreamBeginCapture", "cudaStreamEndCapture",
    "cudaGraphLaunch",        "kernel",
};
static_assert(std::size(kNames) == static_cast<size_t>(Call::kNumCalls));

}  // namespace

World& World::Get() {
  static World* const world = new World;
  return *world;
}

absl::Status Error(Call call, absl::string_view text) {
  return absl::InternalError(absl::StrCat(kNames[static_cast<int>(call)], ": ", text));
}

absl::Status FailureStatus(Call call, bool sticky) {
  if (sticky) return Error(call, "an illegal memory access was encountered");
  switch (call) {
    case Call::kMalloc:
    case Call::kMallocHost:
      return absl::ResourceExhaustedError(
          absl::StrCat(kNames[static_cast<int>(call)], ": out of memory"));
    case Call::kOpenDevice:
      return absl::UnavailableError("cudaSetDevice: the device is busy or unavailable");
    default:
      return Error(call, "unspecified failure, asked for by a test");
  }
}

// Counts a call and says whether it fails.
absl::Status World::Enter(Call call) {
  ++counts.calls[static_cast<int>(call)];
  if (lost) return Error(call, "an illegal memory access was encountered");
  for (auto failure = failures.begin(); failure != failures.end(); ++failure) {
    if (failure->call != call || --failure->nth > 0) continue;
    const bool sticky = failure->sticky;
    if (sticky) lost = true;
    if (!failure->for_ever) failures.erase(failure);
    return FailureStatus(call, sticky);
  }
  return absl::OkStatus();
}

// A call that a capture does not allow ends the caller's captures with an error.
absl::Status World::RefuseInCapture(Call call) {
  absl::Status status;
  for (Stream* stream : streams) {
    if (stream->capture == nullptr || stream->capturer != std::this_thread::get_id()) continue;
    stream->capture_broken = true;
    status = Error(call, "operation not permitted when stream is capturing");
  }
  return status;
}

void World::RunKernel(const Work& work, const std::function<void()>& previous) {
  std::vector<void*> args;
  for (const std::unique_ptr<char[]>& bytes : *work.args) args.push_back(bytes.get());
  ++counts.kernels_run;
  emulator::RunGrid(work.kernel, args.data(), seed * 0x9e3779b97f4a7c15 + num_launches++, previous);
}

void World::RunWork(const Work& work) {
  switch (work.kind) {
    case Work::Kind::kKernel:
      RunKernel(work, nullptr);
      break;
    case Work::Kind::kGemm:
      fake::Multiply(work.gemm);
      break;
    case Work::Kind::kCopy:
      std::memmove(work.to, work.bytes != nullptr ? work.bytes->data() : work.from,
                   static_cast<size_t>(work.size));
      break;
    case Work::Kind::kFill:
      std::memset(work.to, work.value, static_cast<size_t>(work.size));
      break;
    case Work::Kind::kRecord:
      work.event->done = true;
      work.event->time = std::chrono::steady_clock::now();
      break;
    case Work::Kind::kWait:
      if (streams.count(work.awaited) > 0) RunUntil(work.awaited, work.sequence);
      break;
  }
}

bool World::NextOverlaps(const Stream& stream, uint64_t sequence) {
  if (stream.queue.empty() || stream.done >= sequence || machine.traits.compute_major < 9) {
    return false;
  }
  const Work& next = stream.queue.front();
  return next.kind == Work::Kind::kKernel && next.kernel.options.dependent &&
         ((seed + num_launches) * 0x9e3779b97f4a7c15 >> 63) != 0;
}

bool World::Take(Stream* stream, Work* work) {
  *work = std::move(stream->queue.front());
  stream->queue.pop_front();
  ++stream->done;
  const absl::Status status = Enter(Call::kRun);
  if (!status.ok() && deferred.ok()) deferred = status;
  return status.ok();
}

void World::RunUntil(Stream* stream, uint64_t sequence) {
  while (stream->done < sequence && !stream->queue.empty()) {
    Work work;
    if (!Take(stream, &work)) continue;
    if (work.kind != Work::Kind::kKernel || !NextOverlaps(*stream, sequence)) {
      RunWork(work);
      continue;
    }
    Work next;
    if (Take(stream, &next)) {
      RunKernel(next, [&] { RunWork(work); });
    } else {
      RunWork(work);
    }
  }
}

void World::RunEverything() {
  for (Stream* stream : streams) RunUntil(stream, stream->issued);
}

void World::Issue(Stream* stream, Work work) {
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
    return;
  }
  stream->queue.push_back(std::move(work));
  ++stream->issued;
}

absl::Status World::TakeDeferred() { return std::exchange(deferred, absl::OkStatus()); }

// --- what tests ask ---

void Reset(const Machine& machine) {
  World& world = World::Get();
  const auto lock = world.Lock();
  world.machine = machine;
  world.failures.clear();
  world.counts = {};
  world.lost = false;
  world.deferred = absl::OkStatus();
}

void FailCall(const Failure& failure) {
  World& world = World::Get();
  const auto lock = world.Lock();
  world.failures.push_back(failure);
}

Counts GetCounts() {
  World& world = World::Get();
  const auto lock = world.Lock();
  return world.counts;
}

MemoryUse GetMemoryUse() {
  World& world = World::Get();
  const auto lock = world.Lock();
  return {world.device.live_bytes(),
          world.device.peak_bytes(),
          world.host.live_bytes(),
          world.device.count() + world.host.count(),
          static_cast<int64_t>(world.streams.size()),
          world.events,
          world.graphs};
}

void SetSeed(uint64_t seed) {
  World& world = World::Get();
  const auto lock = world.Lock();
  world.seed = seed;
  world.num_launches = 0;
}

}  // namespace nibble::cuda::fake
