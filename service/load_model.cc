// See the header.
#include "service/load_model.h"

#include <utility>

#include "engine/status.h"
#include "service/convert.h"

namespace nibble {
namespace {

// The same error, its message without --model-root's path.
absl::Status Scrubbed(const ServiceParts& parts, const absl::Status& status) {
  const std::string message =
      parts.model_root->Scrub(std::string_view(status.message().data(), status.message().size()));
  absl::Status scrubbed(status.code(), message);
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { scrubbed.SetPayload(url, payload); });
  return scrubbed;
}

}  // namespace

absl::StatusOr<LoadRequest> MakeLoadRequest(const ServiceParts& parts, const std::string& name,
                                            const std::string& source,
                                            const v1::LoadOptions& options) {
  LoadRequest request;
  absl::StatusOr<std::string> path = parts.model_root->Resolve(source);
  if (!path.ok()) return path.status();
  absl::StatusOr<ModelOptions> converted =
      FromProto(options, parts.engine->device(), parts.engine->options().backend.compute);
  if (!converted.ok()) return converted.status();
  request.name = name;
  request.source = *std::move(path);
  request.options = *std::move(converted);
  return request;
}

absl::StatusOr<ModelDescription> LoadAndServe(
    const ServiceParts& parts, const LoadRequest& request,
    const std::function<void(const LoadProgress&)>& progress) {
  if (parts.door->draining()) {
    return Error(absl::StatusCode::kUnavailable, "DRAINING", "the server is shutting down");
  }
  const absl::Time begin = absl::Now();
  absl::StatusOr<ModelDescription> model = parts.engine->LoadModel(request, progress);
  ServerEvent event;
  event.model = request.name;
  event.duration = absl::Now() - begin;
  if (model.ok()) {
    parts.health->SetModel(request.name, true);
    // An unload may have come between: what it said first must stand.
    const absl::StatusOr<ModelDescription> now = parts.engine->GetModel(request.name);
    if (!now.ok() || now->state != ModelState::kReady) parts.health->SetModel(request.name, false);
    event.kind = ServerEvent::Kind::kModelLoaded;
    event.message = model->memory.Breakdown();
  } else {
    model = Scrubbed(parts, model.status());
    event.kind = ServerEvent::Kind::kLoadFailed;
    event.status = model.status();
  }
  parts.door->Tell(event);
  return model;
}

absl::StatusOr<ModelDescription> Estimated(const ServiceParts& parts, const LoadRequest& request) {
  absl::StatusOr<ModelDescription> model = parts.engine->EstimateModel(request);
  if (!model.ok()) return Scrubbed(parts, model.status());
  return model;
}

absl::Status StopAndUnload(const ServiceParts& parts, const std::string& name,
                           absl::Time deadline) {
  const absl::Time begin = absl::Now();
  if (parts.health->Serves(name)) parts.health->SetModel(name, false);
  const absl::Status status = parts.engine->UnloadModel(name, deadline);
  if (!status.ok()) return status;
  ServerEvent event;
  event.kind = ServerEvent::Kind::kModelUnloaded;
  event.model = name;
  event.duration = absl::Now() - begin;
  parts.door->Tell(event);
  return status;
}

}  // namespace nibble
