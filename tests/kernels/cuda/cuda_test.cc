#include "tests/kernels/cuda/cuda_test.h"

#include <cstdio>

namespace nibble::cuda {
namespace {

TestDevice OpenTestDevice() {
  TestDevice device;
  absl::StatusOr<DeviceTraits> traits = OpenDevice(0);
  if (!traits.ok()) {
    device.why_not = std::string(traits.status().message());
    std::printf("CUDA tests: %s has no device: %s\n", MachineName(), device.why_not.c_str());
    return device;
  }
  absl::StatusOr<Stream*> stream = MakeStream();
  if (!stream.ok()) {
    device.why_not = std::string(stream.status().message());
    return device;
  }
  // Never freed: the stream's products use it as long as there is a stream.
  constexpr int64_t kWorkspaceBytes = int64_t{4} << 20;
  const absl::StatusOr<void*> workspace = Malloc(kWorkspaceBytes);
  if (!workspace.ok() || !UseGemmWorkspace(*stream, *workspace, kWorkspaceBytes).ok()) {
    device.why_not = "no memory for cuBLAS";
    return device;
  }
  device.found = true;
  device.traits = *traits;
  device.stream = *stream;
  std::printf("CUDA tests run on %s: %s, compute capability %d.%d\n", MachineName(),
              traits->name.c_str(), traits->compute_major, traits->compute_minor);
  return device;
}

}  // namespace

const TestDevice& GetTestDevice() {
  static const TestDevice* const device = new TestDevice(OpenTestDevice());
  return *device;
}

void Play(const Tape& tape) {
  Stream* const stream = GetTestDevice().stream;
  const absl::Status played = tape.Play(stream);
  EXPECT_TRUE(played.ok()) << played;
  const absl::Status done = Synchronize(stream);
  EXPECT_TRUE(done.ok()) << done;
}

void CopyNow(void* to, const void* from, int64_t bytes) {
  Stream* const stream = GetTestDevice().stream;
  const absl::Status copied = Copy(to, from, bytes, stream);
  EXPECT_TRUE(copied.ok()) << copied;
  const absl::Status done = Synchronize(stream);
  EXPECT_TRUE(done.ok()) << done;
}

void ForMachineSeeds(int num_seeds, const std::function<void()>& body) {
  for (int seed = 1; seed <= (IsEmulated() ? num_seeds : 1); ++seed) {
    SCOPED_TRACE(::testing::Message() << "machine seed " << seed);
    SetMachineSeed(static_cast<uint64_t>(seed));
    body();
  }
}

}  // namespace nibble::cuda
