// Loading and unloading as the server does it, from the command line and by RPC alike: the engine
// does the work, health and the observer hear of it.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nibble/v1/models.pb.h"
#include "service/parts.h"

namespace nibble {

// A client's wish, its source resolved under --model-root. name may be empty (an estimate).
// Errors: UNIMPLEMENTED (no --model-root, a format of a later version), INVALID_ARGUMENT,
// NOT_FOUND.
absl::StatusOr<LoadRequest> MakeLoadRequest(const ServiceParts& parts, const std::string& name,
                                            const std::string& source,
                                            const v1::LoadOptions& options);

// Blocks while the model loads. Errors: the engine's, without the server's own paths.
absl::StatusOr<ModelDescription> LoadAndServe(
    const ServiceParts& parts, const LoadRequest& request,
    const std::function<void(const LoadProgress&)>& progress);

// What the load would take. Errors: the engine's, without the server's own paths.
absl::StatusOr<ModelDescription> Estimated(const ServiceParts& parts, const LoadRequest& request);

// Blocks until nothing of the model runs and its memory is free. Errors: the engine's.
absl::Status StopAndUnload(const ServiceParts& parts, const std::string& name, absl::Time deadline);

}  // namespace nibble
