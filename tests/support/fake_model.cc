// Keys in pages, hashes of keys, tokens from hashes.
#include "tests/support/fake_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "engine/status.h"

namespace nibble {
namespace {

// Lends one tokenizer to several models.
class Borrowed final : public Tokenizer {
 public:
  explicit Borrowed(std::shared_ptr<Tokenizer> real) : real_(std::move(real)) {
    bos_id_ = real_->bos_id();
    eos_id_ = real_->eos_id();
  }
  std::string TokenBytes(int32_t id, bool first) const override {
    return real_->TokenBytes(id, first);
  }
  int32_t vocab_size() const override { return real_->vocab_size(); }
  bool IsSpecial(int32_t id) const override { return real_->IsSpecial(id); }
  std::optional<int32_t> TokenToId(std::string_view t) const override {
    return real_->TokenToId(t);
  }
  int64_t MemoryBytes() const override { return 0; }

 protected:
  absl::StatusOr<Encoding> EncodeText(std::string_view text,
                                      const EncodeOptions& options) const override {
    return real_->Encode(text, options.add_special_tokens);
  }

 private:
  const std::shared_ptr<Tokenizer> real_;
};

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  x = (x ^ (x >> 31)) * 0xBF58476D1CE4E5B9u;
  return x ^ (x >> 29);
}
float Unit(uint64_t hash) { return static_cast<float>(hash >> 40) / (1 << 24); }

float Logprob(uint64_t context, int32_t token) {
  return -Unit(Mix(context, static_cast<uint64_t>(token)));
}

absl::Status Fault() {
  return Error(absl::StatusCode::kInternal, "DEVICE_FAULT", "the fake device failed");
}

}  // namespace

FakeModel::FakeModel(std::string name, const FakeModelOptions& options)
    : fake_(options), keys_(static_cast<size_t>(options.num_pages * kPageSlots)) {
  name_ = std::move(name);
  config_.vocab = options.vocab;
  config_.hidden = options.hidden;
  config_.max_positions = options.max_context;
  config_.generation = options.generation;
  config_.embedding = options.embedding;
  options_.max_context = options.max_context;
  limits_ = options.limits;
  if (!options.embeds) kv_.num_pages = options.num_pages;
  if (options.tokenizer != nullptr) tokenizer_ = std::make_unique<Borrowed>(options.tokenizer);
  if (!options.chat_template.empty()) {
    chat_template_ = *ChatTemplate::Parse(options.chat_template);
  }
}

absl::Status FakeModel::Decode(DecodeStep* step) {
  CheckStep(*step);
  if (Faulty(step->tokens.size())) return Fault();
  if (step->sampled.size() < step->plans.size()) step->sampled.resize(step->plans.size());
  size_t next_plan = 0;
  for (const SequenceRows& rows : step->sequences) {
    uint64_t context = Prefix(rows, rows.start);
    for (int64_t i = 0; i < rows.num_rows; ++i) {
      const int64_t row = rows.first_row + i;
      const int32_t token = step->tokens[static_cast<size_t>(row)];
      // A key depends on all before it, as in a real model.
      Key(rows, rows.start + i) = {context, token};
      context = Mix(context, static_cast<uint64_t>(token) + 1);
      for (; next_plan < step->plans.size() && step->plans[next_plan].row == row; ++next_plan) {
        Sample(step->plans[next_plan], context, token, &step->sampled[next_plan]);
      }
    }
  }
  EXPECT_EQ(next_plan, step->plans.size()) << "plans are sorted by row";
  return absl::OkStatus();
}

absl::Status FakeModel::Encode(EncodeStep* step) {
  if (Faulty(step->tokens.size())) return Fault();
  EXPECT_LE(static_cast<int64_t>(step->tokens.size()), limits_.max_rows);
  EXPECT_LE(static_cast<int64_t>(step->sequences.size()), limits_.max_sequences);
  const int64_t width = step->dimensions == 0 ? config_.hidden : step->dimensions;
  step->pooled.clear();
  for (const SequenceRows& rows : step->sequences) {
    uint64_t hash = Mix(static_cast<uint64_t>(step->pooling), step->normalize ? 1 : 0);
    for (int64_t i = 0; i < rows.num_rows; ++i) {
      hash =
          Mix(hash, static_cast<uint64_t>(step->tokens[static_cast<size_t>(rows.first_row + i)]));
    }
    for (int64_t d = 0; d < width; ++d) {
      step->pooled.push_back(Unit(Mix(hash, static_cast<uint64_t>(d))));
    }
  }
  return absl::OkStatus();
}

FakeModel::Stored& FakeModel::Key(const SequenceRows& rows, int64_t position) {
  const int32_t page = rows.pages[position / kPageSlots];
  EXPECT_TRUE(page >= 0 && page < fake_.num_pages);
  return keys_[static_cast<size_t>(page * kPageSlots + position % kPageSlots)];
}

uint64_t FakeModel::Prefix(const SequenceRows& rows, int64_t end) {
  uint64_t context = 0;
  for (int64_t position = 0; position < end; ++position) {
    const Stored& stored = Key(rows, position);
    context = Mix(context ^ (stored.before - context), static_cast<uint64_t>(stored.token) + 1);
  }
  return context;
}

void FakeModel::Sample(const SamplingPlan& plan, uint64_t context, int32_t last,
                       SampledToken* out) const {
  uint64_t draw = context;
  if (plan.temperature > 0) draw = Mix(Mix(Mix(draw, plan.seed), plan.index), plan.position);
  for (const TokenCount& count : plan.counts) {
    draw = Mix(
        draw, static_cast<uint64_t>(count.token) << 20 | static_cast<uint64_t>(count.output_count));
  }
  const int32_t limit = plan.vocab_limit > 0 ? plan.vocab_limit : static_cast<int32_t>(fake_.vocab);
  out->token = fake_.successor ? (last + 1) % limit
                               : static_cast<int32_t>(draw % static_cast<uint64_t>(limit));
  while (std::count(plan.banned.begin(), plan.banned.end(), out->token) > 0) {
    out->token = (out->token + 1) % limit;
  }
  if (plan.forced_token >= 0) out->token = plan.forced_token;
  out->logprob = Logprob(context, out->token);
  out->top.clear();
  for (int32_t i = 0; i < plan.num_logprobs; ++i) out->top.push_back({i, Logprob(context, i)});
}

void FakeModel::CheckStep(const DecodeStep& step) const {
  EXPECT_LE(static_cast<int64_t>(step.tokens.size()), limits_.max_rows);
  EXPECT_LE(static_cast<int64_t>(step.sequences.size()), limits_.max_sequences);
  EXPECT_FALSE(step.tokens.empty());
  int64_t row = 0;
  std::vector<int32_t> pages;
  for (const SequenceRows& rows : step.sequences) {
    EXPECT_EQ(rows.first_row, row);
    EXPECT_GT(rows.num_rows, 0);
    row += rows.num_rows;
    const int64_t used = (rows.start + rows.num_rows + kPageSlots - 1) / kPageSlots;
    pages.insert(pages.end(), rows.pages, rows.pages + used);
  }
  EXPECT_EQ(row, static_cast<int64_t>(step.tokens.size()));
  std::sort(pages.begin(), pages.end());
  EXPECT_EQ(std::adjacent_find(pages.begin(), pages.end()), pages.end()) << "a page is shared";
}

bool FakeModel::Faulty(size_t rows) {
  if (fake_.on_step) fake_.on_step(static_cast<int64_t>(rows));
  return fake_.faults_to_come != nullptr && fake_.faults_to_come->load() > 0 &&
         fake_.faults_to_come->fetch_sub(1) > 0;
}

}  // namespace nibble
