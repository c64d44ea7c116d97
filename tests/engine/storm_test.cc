// Thousands of random steps: arrivals, cancellations, deadlines, too few pages. Every admitted
// request ends exactly once, every page comes back, and every answer is what it would have been
// alone.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/status.h"
#include "tests/engine/simulation.h"
#include "tests/support/fake_tokenizer.h"

namespace nibble {
namespace {

using Tokens = std::vector<int32_t>;

struct Sent {
  GenerateRequest request;
  std::shared_ptr<RecordingSink> sink;
  RequestId id = 0;
  bool cancelled = false;
};

GenerateRequest RandomRequest(std::mt19937* random, int64_t max_prompt) {
  const auto draw = [&](int64_t n) {
    return static_cast<int32_t>((*random)() % static_cast<uint64_t>(n));
  };
  Tokens prompt(static_cast<size_t>(1 + draw(max_prompt)));
  for (int32_t& id : prompt) id = draw(64);
  GenerateRequest request = TokensRequest(std::move(prompt), 1 + draw(40));
  request.priority = static_cast<Priority>(draw(3));
  request.sampling.seed = static_cast<uint64_t>(draw(1000));
  request.sampling.n = 1 + draw(3);
  if (draw(2) == 0) request.sampling.temperature = 1;
  if (draw(3) == 0) request.sampling.repetition_penalty = 1.1f;
  if (draw(3) == 0) request.stopping.stop_token_ids = {draw(64)};
  if (draw(4) == 0) request.output.prompt_logprobs = 1;
  if (draw(4) == 0) request.output.logprobs = 2;
  return request;
}

// The answers of a request that has the whole engine to itself.
std::map<int32_t, RecordingSink::Answer> Alone(const GenerateRequest& request) {
  Simulation simulation;
  simulation.AddModel("m", {});
  GenerateRequest alone = request;
  alone.context.deadline = absl::InfiniteFuture();
  const auto sink = simulation.Submit(alone);
  simulation.Run();
  std::map<int32_t, RecordingSink::Answer> answers;
  for (int32_t i = 0; i < request.sampling.n; ++i) answers[i] = sink->answer(i);
  return answers;
}

bool IsBeginningOf(const Tokens& part, const Tokens& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

void ExpectEqualLogprobs(const std::vector<TokenLogprobs>& got,
                         const std::vector<TokenLogprobs>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].token_id, want[i].token_id);
    EXPECT_EQ(got[i].logprob, want[i].logprob);
  }
}

void ExpectAsAlone(const Sent& sent) {
  const auto want = Alone(sent.request);
  const absl::Status status = sent.sink->status();
  for (int32_t i = 0; i < sent.request.sampling.n; ++i) {
    const RecordingSink::Answer got = sent.sink->answer(i);
    if (!status.ok()) {
      EXPECT_TRUE(IsBeginningOf(got.token_ids, want.at(i).token_ids));
      continue;
    }
    EXPECT_TRUE(got.finished());
    EXPECT_EQ(got.token_ids, want.at(i).token_ids);
    EXPECT_EQ(got.last.finish_reason, want.at(i).last.finish_reason);
    EXPECT_EQ(got.last.usage.completion_tokens, want.at(i).last.usage.completion_tokens);
    ExpectEqualLogprobs(got.logprobs, want.at(i).logprobs);
    ExpectEqualLogprobs(got.prompt_logprobs, want.at(i).prompt_logprobs);
  }
}

class Storm {
 public:
  explicit Storm(uint32_t seed) : random_(seed) {
    const StepLimits limits{
        .max_rows = 1 + Draw(60), .max_sequences = 1 + Draw(20), .max_logit_rows = 16};
    // One context of 256 always fits; 64 of them never do.
    model_ = simulation_.AddModel("m", {.num_pages = 16 + Draw(40), .limits = limits});
  }

  void Run() {
    for (int step = 0; step < 400; ++step) {
      if (Draw(3) == 0) Arrive();
      if (Draw(20) == 0) CancelOne();
      simulation_.Step();
      ASSERT_LE(model_->pages()->num_used(), model_->pages()->num_pages());
    }
    for (int step = 0; simulation_.num_jobs() > 0; ++step) {
      ASSERT_LT(step, 100000) << "someone starves";
      simulation_.Step();
    }
    Check();
  }

  int64_t preemptions() const { return model_->Stats().preemptions_total; }
  int64_t expired() const { return expired_; }

 private:
  int64_t Draw(int64_t n) { return static_cast<int64_t>(random_()) % n; }

  void Arrive() {
    Sent sent;
    sent.request = RandomRequest(&random_, 150);
    if (Draw(5) == 0) {
      sent.request.context.deadline = simulation_.clock.Now() + absl::Milliseconds(1 + Draw(300));
    }
    sent.sink = simulation_.Submit(sent.request, &sent.id);
    sent_.push_back(std::move(sent));
  }

  void CancelOne() {
    if (sent_.empty()) return;
    Sent& sent = sent_[static_cast<size_t>(Draw(static_cast<int64_t>(sent_.size())))];
    sent.cancelled |= !sent.sink->done();
    simulation_.Cancel(sent.id, absl::CancelledError("the client left"));
  }

  void Check() {
    int64_t stopped = 0;
    for (const Sent& sent : sent_) {
      ASSERT_TRUE(sent.sink->done());
      const absl::StatusCode code = sent.sink->status().code();
      if (code == absl::StatusCode::kDeadlineExceeded) {
        EXPECT_LE(sent.request.context.deadline, simulation_.clock.Now());
        ++expired_;
      } else {
        EXPECT_EQ(code, sent.cancelled ? absl::StatusCode::kCancelled : absl::StatusCode::kOk);
      }
      ExpectAsAlone(sent);
      stopped += sent.request.sampling.n;
    }
    EXPECT_EQ(model_->pages()->num_used(), 0);
    const ModelStats stats = model_->Stats();
    int64_t finished = 0;
    for (const auto& [reason, count] : stats.finished) finished += count;
    EXPECT_EQ(finished, stopped);
    EXPECT_EQ(stats.running[0], 0);
    EXPECT_EQ(stats.waiting[0], 0);
    EXPECT_EQ(stats.kv_usage_ratio, 0);
    EXPECT_EQ(model_->admission().waiting_requests(), 0);
  }

  std::mt19937 random_;
  Simulation simulation_;
  ServedModel* model_;
  std::vector<Sent> sent_;
  int64_t expired_ = 0;
};

TEST(Storm, LosesNothingAndChangesNoAnswer) {
  int64_t preemptions = 0, expired = 0;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    Storm storm(seed);
    storm.Run();
    preemptions += storm.preemptions();
    expired += storm.expired();
    if (::testing::Test::HasFailure()) break;
  }
  // The storm was one.
  EXPECT_GT(preemptions, 50);
  EXPECT_GT(expired, 50);
}

}  // namespace
}  // namespace nibble
