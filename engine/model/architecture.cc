// The rows.
#include "engine/model/architecture.h"

#include <cstdio>
#include <cstdlib>

#include "engine/model/decoder.h"
#include "engine/model/encoder.h"

namespace nibble {
namespace {

template <typename M>
std::unique_ptr<Model> Make(const ModelConfig& config, const StepLimits& limits,
                            Inventory* inventory, Workspace* workspace) {
  return std::make_unique<M>(config, limits, inventory, workspace);
}

constexpr ArchitectureRow kArchitectures[] = {
    {Architecture::kLlama, "llama", true, &Decoder::Check, &Make<Decoder>},
    {Architecture::kBert, "bert", false, &Encoder::Check, &Make<Encoder>},
};

}  // namespace

const ArchitectureRow& FindArchitecture(Architecture architecture) {
  for (const ArchitectureRow& row : kArchitectures) {
    if (row.architecture == architecture) return row;
  }
  std::fprintf(stderr, "model: architecture %d has no row\n", static_cast<int>(architecture));
  std::abort();
}

}  // namespace nibble
