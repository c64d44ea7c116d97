// The rows.
#include "engine/model/architecture.h"

#include <algorithm>
#include <iterator>

#include "engine/check.h"
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
  const auto row = std::find_if(
      std::begin(kArchitectures), std::end(kArchitectures),
      [&](const ArchitectureRow& candidate) { return candidate.architecture == architecture; });
  Check(row != std::end(kArchitectures), "every architecture has a row");
  return *row;
}

}  // namespace nibble
