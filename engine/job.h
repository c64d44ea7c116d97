// One request as the engine thread runs it: made by the submitting thread, handed over whole, ended
// once.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "engine/registry.h"
#include "engine/request.h"
#include "engine/scheduler/embed_queue.h"
#include "engine/sequence.h"
#include "engine/token_sink.h"

namespace nibble {

// The lease is the first member, so it ends last: what a job holds of its model is gone before an
// unload goes on.
struct Job {
  Job(ModelLease held, Operation op) : lease(std::move(held)), operation(op) {}
  virtual ~Job() = default;
  virtual int64_t num_unfinished() const = 0;  // answers that have no end yet

  ModelLease lease;
  const Operation operation;
  RequestId id = 0;
  RequestContext context;
  std::shared_ptr<TokenSink> sink;
  int64_t prompt_tokens = 0;
  int64_t queued_tokens = 0;  // what it counts for in admission until it starts
  bool started = false;       // its first row is computed
  bool ended = false;         // its end is decided
  absl::Time started_at = absl::InfiniteFuture();
};

struct GenerateJob : Job {
  explicit GenerateJob(ModelLease held) : Job(std::move(held), Operation::kGenerate) {}
  int64_t num_unfinished() const override {
    return static_cast<int64_t>(sequences.size() - num_finished);
  }

  Priority priority = Priority::kNormal;
  AnswerSpec spec;
  std::vector<Sequence> sequences;  // one per answer; never grows once it is handed over
  size_t num_finished = 0;
  bool delivered = false;  // the client has heard of it
  absl::Time first_token_at = absl::InfiniteFuture();
  absl::Time last_token_at = absl::InfinitePast();
};

struct EmbedJob : Job, Packable {
  explicit EmbedJob(ModelLease held) : Job(std::move(held), Operation::kEmbed) {}
  int64_t num_unfinished() const override { return 1; }

  std::vector<std::vector<int32_t>> inputs;
  std::vector<Embedding> embeddings;
  size_t num_embedded = 0;
};

}  // namespace nibble
