// A CUDA runtime without CUDA: what each call checks, and what it asks of the world.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/cuda_emulator/fake_world.h"
#include "tests/support/cuda_emulator/grid.h"

namespace nibble::cuda {
namespace {

using fake::Call;
using fake::Error;
using fake::Work;
using fake::World;

[[noreturn]] void Misuse(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s\n", what);
  std::abort();
}

absl::StatusOr<void*> AllocateHere(World& world, Call call, fake::GuardedMemory& memory,
                                   int64_t bytes, int fill) {
  if (const absl::Status status = world.Enter(call); !status.ok()) return status;
  if (const absl::Status status = world.RefuseInCapture(call); !status.ok()) return status;
  const fake::Machine& machine = world.machine;
  if (bytes < 0) return Error(call, "invalid argument");
  if (call == Call::kMalloc &&
      bytes > machine.traits.total_bytes - machine.context_bytes - memory.live_bytes()) {
    return fake::FailureStatus(call, false);
  }
  void* const pointer = memory.Allocate(bytes, fill);
  if (pointer == nullptr) return fake::FailureStatus(call, false);
  return pointer;
}

}  // namespace

// --- devices ---

int CountDevices() {
  World& world = World::Get();
  const auto lock = world.Lock();
  return world.machine.driver_too_old ? 0 : world.machine.num_devices;
}

absl::StatusOr<DeviceTraits> OpenDevice(int ordinal) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kOpenDevice); !status.ok()) return status;
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
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kUseDevice); !status.ok()) return status;
  if (ordinal < 0 || ordinal >= world.machine.num_devices) {
    return Error(Call::kUseDevice, "invalid device ordinal");
  }
  return absl::OkStatus();
}

absl::Status MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kMemoryInfo); !status.ok()) return status;
  *total_bytes = world.machine.traits.total_bytes;
  *free_bytes = *total_bytes - world.machine.context_bytes - world.device.live_bytes();
  return absl::OkStatus();
}

bool IsLost() {
  World& world = World::Get();
  const auto lock = world.Lock();
  return world.lost;
}

// --- memory ---

absl::StatusOr<void*> Malloc(int64_t bytes) {
  World& world = World::Get();
  const auto lock = world.Lock();
  return AllocateHere(world, Call::kMalloc, world.device, bytes, 0xff);
}

void Free(void* device) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (device == nullptr) return;
  world.RunEverything();  // as cudaFree does
  if (!world.device.Free(device)) Misuse("Free of what Malloc did not give");
}

absl::StatusOr<void*> MallocHost(int64_t bytes) {
  World& world = World::Get();
  const auto lock = world.Lock();
  return AllocateHere(world, Call::kMallocHost, world.host, bytes, 0);
}

void FreeHost(void* host) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (host == nullptr) return;
  world.RunEverything();
  if (!world.host.Free(host)) Misuse("FreeHost of what MallocHost did not give");
}

// --- streams and events ---

absl::StatusOr<Stream*> MakeStream() {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kMakeStream); !status.ok()) return status;
  return *world.streams.insert(new Stream).first;
}

void Destroy(Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (stream == nullptr) return;
  world.RunUntil(stream, stream->issued);
  world.streams.erase(stream);
  delete stream->capture;
  delete stream;
}

void* NativeStream(Stream* /*stream*/) { return nullptr; }

absl::Status Synchronize(Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kSynchronize); !status.ok()) return status;
  if (stream->capture != nullptr) {
    stream->capture_broken = true;
    return Error(Call::kSynchronize, "operation not permitted when stream is capturing");
  }
  world.RunUntil(stream, stream->issued);
  return world.TakeDeferred();
}

absl::StatusOr<Event*> MakeEvent() {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kMakeEvent); !status.ok()) return status;
  ++world.events;
  return new Event;
}

void Destroy(Event* event) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (event == nullptr) return;
  --world.events;
  delete event;
}

absl::Status Record(Event* event, Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kRecord); !status.ok()) return status;
  if (stream->capture != nullptr) return Error(Call::kRecord, "not played while capturing");
  event->time = std::make_shared<fake::EventTime>();
  event->time->stream = stream;
  event->time->sequence = stream->issued + 1;
  Work work;
  work.kind = Work::Kind::kRecord;
  work.event = event->time;
  world.Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::Status Wait(Stream* stream, Event* event) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kWait); !status.ok()) return status;
  if (stream->capture != nullptr) return Error(Call::kWait, "not played while capturing");
  if (event->time->sequence == 0) return absl::OkStatus();
  Work work;
  work.kind = Work::Kind::kWait;
  work.awaited = event->time->stream;
  work.sequence = event->time->sequence;
  world.Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::StatusOr<double> ElapsedMs(Event* begin, Event* end) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kElapsedMs); !status.ok()) return status;
  if (!begin->time->done || !end->time->done) return Error(Call::kElapsedMs, "device not ready");
  return std::chrono::duration<double, std::milli>(end->time->time - begin->time->time).count();
}

// --- work ---

absl::Status Copy(void* to, const void* from, int64_t bytes, Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kCopy); !status.ok()) return status;
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
  world.Issue(stream, std::move(work));
  if (!to_host) return absl::OkStatus();
  world.RunUntil(stream, stream->issued);
  return world.TakeDeferred();
}

absl::Status Fill(void* device, uint8_t value, int64_t bytes, Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kFill); !status.ok()) return status;
  if (bytes == 0) return absl::OkStatus();
  if (bytes < 0 || !world.device.Holds(device, bytes)) {
    return Error(Call::kFill, "invalid argument");
  }
  Work work;
  work.kind = Work::Kind::kFill;
  work.to = device;
  work.value = value;
  work.size = bytes;
  world.Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::Status IssueKernel(const KernelCall& call, void* const* args, const size_t* sizes,
                         size_t num_args, Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kIssueKernel); !status.ok()) return status;
  const Dim3& block = call.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || call.grid.x == 0 || call.grid.y == 0 ||
      call.grid.z == 0 || call.grid.x > 0x7fffffffu || call.grid.y > 65535 || call.grid.z > 65535) {
    return Error(Call::kIssueKernel, "invalid configuration argument");
  }
  if (call.options.shared_bytes > world.machine.traits.shared_bytes) {
    return Error(Call::kIssueKernel, "invalid argument: too much shared memory");
  }
  emulator::CheckArguments(call, args, sizes, num_args, [&](const void* pointer) {
    return world.device.Near(pointer) || world.host.Near(pointer) ||
           world.device.WasFreed(pointer) || world.host.WasFreed(pointer);
  });
  Work work;
  work.kind = Work::Kind::kKernel;
  work.kernel = call;
  work.args = std::make_shared<std::vector<std::unique_ptr<char[]>>>();
  for (size_t i = 0; i < num_args; ++i) {
    work.args->push_back(std::make_unique<char[]>(sizes[i]));
    std::memcpy(work.args->back().get(), args[i], sizes[i]);
  }
  world.Issue(stream, std::move(work));
  return absl::OkStatus();
}

absl::Status UseGemmWorkspace(Stream* stream, void* device, int64_t bytes) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kUseGemmWorkspace); !status.ok()) {
    return status;
  }
  if (!world.device.Holds(device, bytes)) {
    return Error(Call::kUseGemmWorkspace, "CUBLAS_STATUS_INVALID_VALUE");
  }
  stream->has_workspace = true;
  return absl::OkStatus();
}

absl::Status IssueGemm(const GemmCall& call, Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kIssueGemm); !status.ok()) return status;
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
  world.Issue(stream, std::move(work));
  return absl::OkStatus();
}

// --- graphs ---

absl::Status BeginCapture(Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kBeginCapture); !status.ok()) return status;
  if (stream->capture != nullptr) return Error(Call::kBeginCapture, "already capturing");
  stream->capture = new Graph;
  stream->capturer = std::this_thread::get_id();
  stream->capture_broken = false;
  return absl::OkStatus();
}

absl::StatusOr<Graph*> EndCapture(Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  const absl::Status status = world.Enter(Call::kEndCapture);
  std::unique_ptr<Graph> graph(std::exchange(stream->capture, nullptr));
  if (!status.ok()) return status;
  if (graph == nullptr) return Error(Call::kEndCapture, "the stream is not capturing");
  if (stream->capture_broken) return Error(Call::kEndCapture, "the capture was invalidated");
  ++world.graphs;
  return graph.release();
}

absl::Status IssueGraph(Graph* graph, Stream* stream) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (const absl::Status status = world.Enter(Call::kIssueGraph); !status.ok()) return status;
  for (const Work& work : graph->work) world.Issue(stream, work);
  return absl::OkStatus();
}

void Destroy(Graph* graph) {
  World& world = World::Get();
  const auto lock = world.Lock();
  if (graph == nullptr) return;
  --world.graphs;
  delete graph;
}

}  // namespace nibble::cuda
