// Linked instead of kernels/cuda when the build has no CUDA.
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"

namespace nibble {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions& options) {
  return absl::UnavailableError(absl::StrCat("device: got \"", options.device,
                                             "\", but this build has no CUDA; use \"cpu\""));
}

}  // namespace nibble
