// A CUDA runtime without CUDA. Streams are queues whose work is done as late as a real program
// could see it: when somebody synchronises, waits or reads back. One lock around everything.
#include "tests/support/cuda_emulator/fake_runtime.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/cuda_emulator/fake_gemm.h"
#include "tests/support/cuda_emulator/fake_memory.h"
#include "tests/support/cuda_emulator/grid.h"

namespace nibble::cuda {
namespace {

struct EventTime {
  Stream* stream = nullptr;
  uint64_t sequence = 0;  // of the record in its stream; 0: never recorded
  bool done = false;
  std::chrono::steady_clock::time_point time;
};

// One piece of a stream's work.
struct Work {
  enum class Kind { kKernel, kGemm, kCopy, kFill, kRecord, kWait };
  Kind kind = Kind::kCopy;
  KernelCall kernel;
  // The arguments' bytes, each aligned to 16, and where they begin.
  std::shared_ptr<std::vector<std::pair<std::unique_ptr<char[]>, size_t>>> args;
  GemmCall gemm;
  void* to = nullptr;
  const void* from = nullptr;
  std::shared_ptr<std::vector<char>> bytes;  // of a copy whose source was ordinary host memory
  int64_t size = 0;
  uint8_t value = 0;
  std::shared_ptr<EventTime> event;  // of a record
  Stream* awaited = nullptr;         // of a wait
  uint64_t sequence = 0;
};

}  // namespace

struct Stream {
  std::deque<Work> queue;
  uint64_t issued = 0;
  uint64_t done = 0;
  Graph* capture = nullptr;
  std::thread::id capturer;
  bool capture_broken = false;
  bool has_workspace = false;
};

struct Event {
  std::shared_ptr<EventTime> time = std::make_shared<EventTime>();
};

struct Graph {
  std::vector<Work> work;
};

namespace {

using fake::Call;

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

struct World {
  std::recursive_mutex lock;
  fake::Machine machine;
  std::vector<fake::Failure> failures;
  fake::Counts counts;
  bool lost = false;
  absl::Status deferred;  // an error of work that nobody has been told
  fake::GuardedMemory device;
  fake::GuardedMemory host;
  std::set<Stream*> streams;
  int64_t events = 0;
  int64_t graphs = 0;
  uint64_t seed = 1;
  uint64_t num_launches = 0;
};

World& TheWorld() {
  static World* const world = new World;
  return *world;
}

using Lock = std::lock_guard<std::recursive_mutex>;

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
absl::Status Enter(World& world, Call call) {
  ++world.counts.calls[static_cast<int>(call)];
  if (world.lost) return Error(call, "an illegal memory access was encountered");
  for (auto failure = world.failures.begin(); failure != world.failures.end(); ++failure) {
    if (failure->call != call || --failure->nth > 0) continue;
    const bool sticky = failure->sticky;
    if (sticky) world.lost = true;
    if (!failure->for_ever) world.failures.erase(failure);
    return FailureStatus(call, sticky);
  }
  return absl::OkStatus();
}

// A call that a capture does not allow ends the caller's captures with an error.
absl::Status RefuseInCapture(World& world, Call call) {
  absl::Status status;
  for (Stream* stream : world.streams) {
    if (stream->capture == nullptr || stream->capturer != std::this_thread::get_id()) continue;
    stream->capture_broken = true;
    status = Error(call, "operation not permitted when stream is capturing");
  }
  return status;
}

void RunKernel(World& world, const Work& work) {
  std::vector<void*> args;
  for (const auto& [bytes, size] : *work.args) args.push_back(bytes.get());
  ++world.counts.kernels_run;
  emulator::RunGrid(work.kernel, args.data(),
                    world.seed * 0x9e3779b97f4a7c15 + world.num_launches++);
}

void RunUntil(World& world, Stream* stream, uint64_t sequence);

void RunWork(World& world, const Work& work) {
  switch (work.kind) {
    case Work::Kind::kKernel:
      RunKernel(world, work);
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
      if (world.streams.count(work.awaited) > 0) RunUntil(world, work.awaited, work.sequence);
      break;
  }
}

// After an error of a sticky kind the rest of the work is not done.
void RunUntil(World& world, Stream* stream, uint64_t sequence) {
  while (stream->done < sequence && !stream->queue.empty()) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->done;
    const absl::Status status = Enter(world, Call::kRun);
    if (!status.ok() && world.deferred.ok()) world.deferred = status;
    if (status.ok()) RunWork(world, work);
  }
}

void RunEverything(World& world) {
  for (Stream* stream : world.streams) RunUntil(world, stream, stream->issued);
}

void Issue(Stream* stream, Work work) {
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
    return;
  }
  stream->queue.push_back(std::move(work));
  ++stream->issued;
}

absl::Status TakeDeferred(World& world) { return std::exchange(world.deferred, absl::OkStatus()); }

[[noreturn]] void Misuse(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s\n", what);
  std::abort();
}

absl::StatusOr<void*> AllocateHere(World& world, Call call, fake::GuardedMemory& memory,
                                   int64_t bytes, int fill) {
  if (const absl::Status status = Enter(world, call); !status.ok()) return status;
  if (const absl::Status status = RefuseInCapture(world, call); !status.ok()) return status;
  const fake::Machine& machine = world.machine;
  if (call == Call::kMalloc &&
      bytes > machine.traits.total_bytes - machine.context_bytes - memory.live_bytes()) {
    return FailureStatus(call, false);
  }
  void* const pointer = memory.Allocate(bytes, fill);
  if (pointer == nullptr) return FailureStatus(call, false);
  return pointer;
}

}  // namespace

// --- devices ---

int CountDevices() {
  World& world = TheWorld();
  const Lock lock(world.lock);
  return world.machine.driver_too_old ? 0 : world.machine.num_devices;
}

absl::StatusOr<DeviceTraits> OpenDevice(int ordinal) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kOpenDevice); !status.ok()) return status;
  if (world.machine.driver_too_old) {
    return absl::UnavailableError("the NVIDIA driver is older than the CUDA runtime needs");
  }
  if (ordinal < 0 || ordinal >= world.machine.num_devices) {
    return absl::UnavailableError(
        absl::StrCat("there is no CUDA device ", ordinal, "; found ", world.machine.num_devices));
  }
  DeviceTraits traits = world.machine.traits;
  traits.ordinal = ordinal;
  return traits;
}

absl::Status UseDevice(int ordinal) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kUseDevice); !status.ok()) return status;
  if (ordinal < 0 || ordinal >= world.machine.num_devices) {
    return Error(Call::kUseDevice, "invalid device ordinal");
  }
  return absl::OkStatus();
}

absl::Status MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kMemoryInfo); !status.ok()) return status;
  *total_bytes = world.machine.traits.total_bytes;
  *free_bytes = *total_bytes - world.machine.context_bytes - world.device.live_bytes();
  return absl::OkStatus();
}

bool IsLost() {
  World& world = TheWorld();
  const Lock lock(world.lock);
  return world.lost;
}

// --- memory ---

absl::StatusOr<void*> Malloc(int64_t bytes) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  return AllocateHere(world, Call::kMalloc, world.device, bytes, 0xff);
}

void Free(void* device) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (device == nullptr) return;
  RunEverything(world);  // as cudaFree does
  if (!world.device.Free(device)) Misuse("Free of what Malloc did not give");
}

absl::StatusOr<void*> MallocHost(int64_t bytes) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  return AllocateHere(world, Call::kMallocHost, world.host, bytes, 0);
}

void FreeHost(void* host) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (host == nullptr) return;
  RunEverything(world);
  if (!world.host.Free(host)) Misuse("FreeHost of what MallocHost did not give");
}

// --- streams and events ---

absl::StatusOr<Stream*> MakeStream() {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kMakeStream); !status.ok()) return status;
  return *world.streams.insert(new Stream).first;
}

void Destroy(Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (stream == nullptr) return;
  RunUntil(world, stream, stream->issued);
  world.streams.erase(stream);
  delete stream->capture;
  delete stream;
}

void* NativeStream(Stream* /*stream*/) { return nullptr; }

absl::Status Synchronize(Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kSynchronize); !status.ok()) return status;
  if (stream->capture != nullptr) {
    stream->capture_broken = true;
    return Error(Call::kSynchronize, "operation not permitted when stream is capturing");
  }
  RunUntil(world, stream, stream->issued);
  return TakeDeferred(world);
}

absl::StatusOr<Event*> MakeEvent() {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kMakeEvent); !status.ok()) return status;
  ++world.events;
  return new Event;
}

void Destroy(Event* event) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (event == nullptr) return;
  --world.events;
  delete event;
}

absl::Status Record(Event* event, Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kRecord); !status.ok()) return status;
  if (stream->capture != nullptr) return Error(Call::kRecord, "not played while capturing");
  event->time = std::make_shared<EventTime>();
  event->time->stream = stream;
  event->time->sequence = stream->issued + 1;
  Work work;
  work.kind = Work::Kind::kRecord;
  work.event = event->time;
  Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::Status Wait(Stream* stream, Event* event) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kWait); !status.ok()) return status;
  if (stream->capture != nullptr) return Error(Call::kWait, "not played while capturing");
  if (event->time->sequence == 0) return absl::OkStatus();
  Work work;
  work.kind = Work::Kind::kWait;
  work.awaited = event->time->stream;
  work.sequence = event->time->sequence;
  Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::StatusOr<double> ElapsedMs(Event* begin, Event* end) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kElapsedMs); !status.ok()) return status;
  if (!begin->time->done || !end->time->done) return Error(Call::kElapsedMs, "device not ready");
  return std::chrono::duration<double, std::milli>(end->time->time - begin->time->time).count();
}

// --- work ---

absl::Status Copy(void* to, const void* from, int64_t bytes, Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kCopy); !status.ok()) return status;
  if (bytes == 0) return absl::OkStatus();
  const auto ours = [&](const void* pointer) {
    return world.device.Holds(pointer, bytes) || world.host.Holds(pointer, bytes);
  };
  const auto outside = [&](const void* pointer) {
    return !ours(pointer) && (world.device.Near(pointer) || world.host.Near(pointer));
  };
  if (bytes < 0 || outside(to) || outside(from)) return Error(Call::kCopy, "invalid argument");
  const bool to_host = !ours(to);
  const bool from_host = !ours(from);
  if ((to_host || from_host) && stream->capture != nullptr) {
    stream->capture_broken = true;
    return Error(Call::kCopy, "operation not permitted when stream is capturing");
  }
  Work work;
  work.to = to;
  work.from = from;
  work.size = bytes;
  if (from_host) {
    const char* const begin = static_cast<const char*>(from);
    work.bytes = std::make_shared<std::vector<char>>(begin, begin + bytes);
  }
  Issue(stream, std::move(work));
  if (!to_host) return absl::OkStatus();
  RunUntil(world, stream, stream->issued);
  return TakeDeferred(world);
}

absl::Status Fill(void* device, uint8_t value, int64_t bytes, Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kFill); !status.ok()) return status;
  if (bytes == 0) return absl::OkStatus();
  if (bytes < 0 || !world.device.Holds(device, bytes)) {
    return Error(Call::kFill, "invalid argument");
  }
  Work work;
  work.kind = Work::Kind::kFill;
  work.to = device;
  work.value = value;
  work.size = bytes;
  Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::Status IssueKernel(const KernelCall& call, void* const* args, const size_t* sizes,
                         size_t num_args, Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kIssueKernel); !status.ok()) return status;
  const Dim3& block = call.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || call.grid.x == 0 || call.grid.y == 0 ||
      call.grid.z == 0 || call.grid.x > 0x7fffffffu || call.grid.y > 65535 || call.grid.z > 65535) {
    return Error(Call::kIssueKernel, "invalid configuration argument");
  }
  if (call.options.shared_bytes > world.machine.traits.shared_bytes) {
    return Error(Call::kIssueKernel, "invalid argument: too much shared memory");
  }
  Work work;
  work.kind = Work::Kind::kKernel;
  work.kernel = call;
  work.args = std::make_shared<std::vector<std::pair<std::unique_ptr<char[]>, size_t>>>();
  for (size_t i = 0; i < num_args; ++i) {
    work.args->emplace_back(std::make_unique<char[]>(sizes[i]), sizes[i]);
    std::memcpy(work.args->back().first.get(), args[i], sizes[i]);
  }
  Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::Status UseGemmWorkspace(Stream* stream, void* device, int64_t bytes) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kUseGemmWorkspace); !status.ok()) {
    return status;
  }
  if (!world.device.Holds(device, bytes)) {
    return Error(Call::kUseGemmWorkspace, "CUBLAS_STATUS_INVALID_VALUE");
  }
  stream->has_workspace = true;
  return absl::OkStatus();
}

absl::Status IssueGemm(const GemmCall& call, Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kIssueGemm); !status.ok()) return status;
  const bool is_int8 = call.type == GemmCall::Type::kInt8;
  const int64_t element = is_int8 ? 1 : call.type == GemmCall::Type::kFloat ? 4 : 2;
  const auto holds = [&](const void* matrix, int64_t rows, int64_t columns, int64_t stride,
                         int64_t size) {
    return stride >= columns && world.device.Holds(matrix, ((rows - 1) * stride + columns) * size);
  };
  if (call.m <= 0 || call.n <= 0 || call.k <= 0 ||
      !holds(call.x, call.m, call.k, call.x_stride, element) ||
      !holds(call.w, call.n, call.k, call.w_stride, element) ||
      !holds(call.out, call.m, call.n, call.out_stride, 4)) {
    return Error(Call::kIssueGemm, "CUBLAS_STATUS_INVALID_VALUE");
  }
  if (is_int8 && (call.k % 4 != 0 || call.x_stride % 4 != 0 || call.w_stride % 4 != 0)) {
    return Error(Call::kIssueGemm, "CUBLAS_STATUS_NOT_SUPPORTED");
  }
  if (stream->capture != nullptr && !stream->has_workspace) {
    return Error(Call::kIssueGemm, "would allocate memory while capturing: no workspace");
  }
  Work work;
  work.kind = Work::Kind::kGemm;
  work.gemm = call;
  Issue(stream, std::move(work));
  return absl::OkStatus();
}

// --- graphs ---

absl::Status BeginCapture(Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kBeginCapture); !status.ok()) return status;
  if (stream->capture != nullptr) return Error(Call::kBeginCapture, "already capturing");
  stream->capture = new Graph;
  stream->capturer = std::this_thread::get_id();
  stream->capture_broken = false;
  return absl::OkStatus();
}

absl::StatusOr<Graph*> EndCapture(Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  const absl::Status status = Enter(world, Call::kEndCapture);
  std::unique_ptr<Graph> graph(std::exchange(stream->capture, nullptr));
  if (!status.ok()) return status;
  if (graph == nullptr) return Error(Call::kEndCapture, "the stream is not capturing");
  if (stream->capture_broken) return Error(Call::kEndCapture, "the capture was invalidated");
  ++world.graphs;
  return graph.release();
}

absl::Status IssueGraph(Graph* graph, Stream* stream) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (const absl::Status status = Enter(world, Call::kIssueGraph); !status.ok()) return status;
  for (const Work& work : graph->work) Issue(stream, work);
  return absl::OkStatus();
}

void Destroy(Graph* graph) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  if (graph == nullptr) return;
  --world.graphs;
  delete graph;
}

// --- what tests ask ---

namespace fake {

void Reset(const Machine& machine) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  world.machine = machine;
  world.failures.clear();
  world.counts = {};
  world.lost = false;
  world.deferred = absl::OkStatus();
}

void FailCall(const Failure& failure) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  world.failures.push_back(failure);
}

Counts GetCounts() {
  World& world = TheWorld();
  const Lock lock(world.lock);
  return world.counts;
}

MemoryUse GetMemoryUse() {
  World& world = TheWorld();
  const Lock lock(world.lock);
  return {world.device.live_bytes(),
          world.device.peak_bytes(),
          world.host.live_bytes(),
          world.device.count() + world.host.count(),
          static_cast<int64_t>(world.streams.size()),
          world.events,
          world.graphs};
}

void SetSeed(uint64_t seed) {
  World& world = TheWorld();
  const Lock lock(world.lock);
  world.seed = seed;
  world.num_launches = 0;
}

}  // namespace fake
}  // namespace nibble::cuda
