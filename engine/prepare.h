// From a request to a job: names resolved, numbers checked, text encoded. All that can be wrong
// with a request is found here, on the submitting thread, before anything is queued.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/job.h"
#include "engine/registry.h"
#include "engine/request.h"
#include "engine/request_caps.h"
#include "engine/status.h"

namespace nibble {

// Errors: INVALID_ARGUMENT with the field; FAILED_PRECONDITION (the model cannot do this).
absl::StatusOr<std::unique_ptr<GenerateJob>> PrepareGenerate(ModelLease lease,
                                                             const RequestCaps& caps,
                                                             const GenerateRequest& request);
absl::StatusOr<std::unique_ptr<EmbedJob>> PrepareEmbed(ModelLease lease, const RequestCaps& caps,
                                                       const EmbedRequest& request);

// Token ids of a prompt, in range and fitting the context.
absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Model& model, const RequestCaps& caps,
                                                  const GenerateRequest& request);

inline absl::Status Invalid(std::string_view reason, const std::string& message,
                            std::string_view field) {
  return Error(absl::StatusCode::kInvalidArgument, reason, message, field);
}

// Ids that exist: the tokenizer's, or without one the rows of the embedding.
int32_t VocabularyOf(const Model& model);
// Errors: INVALID_ARGUMENT (TOKEN_OUT_OF_RANGE) with the first bad id's place.
absl::Status CheckTokenIds(const Model& model, std::span<const int32_t> ids,
                           std::string_view field);

}  // namespace nibble
