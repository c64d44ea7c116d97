// Sizes and places.
#include "kernels/cuda/own_blocks.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/weight_upload.h"
#include "kernels/four_bit.h"

namespace nibble::cuda {
namespace {

constexpr int64_t kTableBytes = 4096;
constexpr int64_t kCodebook = 16;

// What NVIDIA advises: 32 MiB from Hopper on, 8 before.
int64_t GemmBytes(const DeviceTraits& traits) {
  return int64_t{traits.compute_major >= 9 ? 32 : 8} << 20;
}

// Two codebooks and the dynamic map, one behind the other.
absl::Status WriteTables(OwnBlocks* memory, Stream* stream) {
  auto* const host = reinterpret_cast<float*>(memory->inputs_host);
  float* end = host;
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    end = std::copy_n(CodebookOf(format).data(), kCodebook, end);
  }
  end = std::copy(DynamicMap().begin(), DynamicMap().end(), end);
  const auto* const device = reinterpret_cast<const float*>(memory->device.get());
  memory->tables = {device, device + kCodebook, device + 2 * kCodebook};
  const auto bytes = static_cast<int64_t>(sizeof(float)) * (end - host);
  if (absl::Status status = Copy(memory->device.get(), host, bytes, stream); !status.ok()) {
    return status;
  }
  return Synchronize(stream);
}

}  // namespace

absl::StatusOr<OwnBlocks> TakeOwnBlocks(const DeviceTraits& traits, const OwnSizes& sizes,
                                        Stream* stream) {
  OwnBlocks memory;
  memory.sizes = sizes;
  memory.gemm_bytes = GemmBytes(traits);
  memory.device_bytes = kTableBytes + sizes.input_bytes + sizes.result_bytes +
                        WeightUpload::kDeviceBytes + memory.gemm_bytes;
  absl::Status status;
  memory.device = Own<OwnedDevice>(Malloc(memory.device_bytes), &status);
  if (!status.ok()) return status;
  memory.host = Own<OwnedHost>(MallocHost(sizes.input_bytes + sizes.result_bytes), &status);
  if (!status.ok()) return status;
  memory.inputs_host = memory.host.get();
  memory.results_host = memory.inputs_host + sizes.input_bytes;
  memory.inputs = memory.device.get() + kTableBytes;
  memory.results = memory.inputs + sizes.input_bytes;
  memory.pieces = memory.results + sizes.result_bytes;
  memory.gemm = memory.pieces + WeightUpload::kDeviceBytes;
  if (status = WriteTables(&memory, stream); !status.ok()) return status;
  if (status = UseGemmWorkspace(stream, memory.gemm, memory.gemm_bytes); !status.ok()) {
    return status;
  }
  return memory;
}

}  // namespace nibble::cuda
