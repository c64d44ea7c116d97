// The engine's one call upwards: where a request's results go.
#pragma once

#include "absl/status/status.h"
#include "engine/request.h"

namespace nibble {

// Called by the engine thread only; must not block and must not call the engine back.
// 1. Any number of OnChunk (Generate) or exactly one OnEmbedding (Embed), then
// 2. exactly one OnDone, after which the engine forgets the sink. A failed or cancelled request
// gets only OnDone,
//    with chunks already sent standing.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void OnChunk(GenerateChunk chunk) = 0;
  virtual void OnEmbedding(EmbedResult result) = 0;
  virtual void OnDone(const absl::Status& status) = 0;
};

}  // namespace nibble
