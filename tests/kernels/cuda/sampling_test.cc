// Sampling on the device picks the very tokens, and reports the very logprobs, that the CPU does
// for the same bits of logits: thousands of random plans over logits of every unpleasant kind.
#include "kernels/cuda/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cuda/sampling_scratch.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMax = std::numeric_limits<float>::max();

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  float Uniform() { return static_cast<float>(Below(1 << 24)) * 0x1p-24f; }
  int32_t Below(int32_t n) {
    return static_cast<int32_t>(engine_() % static_cast<uint64_t>(std::max(n, 1)));
  }
  bool OneIn(int32_t n) { return Below(n) == 0; }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// A plan that owns its arrays.
struct OwnedPlan {
  SamplingPlan plan;
  std::vector<TokenBias> bias;
  std::vector<TokenCount> counts;
  std::vector<int32_t> banned;

  SamplingPlan View() const {
    SamplingPlan view = plan;
    view.bias = bias;
    view.counts = counts;
    view.banned = banned;
    return view;
  }
};

// [rows, vocab] of logits with NaN between the rows.
struct Logits {
  int64_t rows, vocab, stride;
  std::vector<float> values;

  Logits(int64_t num_rows, int64_t num_tokens, int64_t margin)
      : rows(num_rows),
        vocab(num_tokens),
        stride(num_tokens + margin),
        values(static_cast<size_t>((num_rows - 1) * stride + num_tokens), kNan) {}
  float* Row(int64_t r) { return values.data() + r * stride; }
  Activations View() { return {values.data(), rows, vocab, stride}; }
};

// The arrays of a step in device memory.
class DeviceStep {
 public:
  DeviceStep(Logits& logits, const std::vector<OwnedPlan>& plans)
      : host_(logits), logits_(logits.values, 4) {
    SetPlans(plans);
    const auto count = static_cast<int64_t>(plans.size());
    sampled_ = DeviceArray<TokenLogprob>(count, 4);
    tops_ = DeviceArray<TokenLogprob>(num_tops_, 4);
    scratch_ = DeviceScratch(SamplingScratchBytes(count, logits.vocab));
    task_.plans = plans_.data();
    task_.biases = biases_.data();
    task_.counts = counts_.data();
    task_.banned = banned_.data();
    task_.sampled = sampled_.data();
    task_.tops = tops_.data();
    task_.num_plans = static_cast<int32_t>(count);
  }

  // Other contents for as many plans and no longer arrays.
  void SetPlans(const std::vector<OwnedPlan>& plans) {
    std::vector<TokenBias> biases;
    std::vector<TokenCount> counts;
    std::vector<int32_t> banned;
    task_.greedy = 1;
    num_tops_ = 0;
    device_plans_.clear();
    for (const OwnedPlan& owned : plans) {
      const SamplingPlan& plan = owned.plan;
      DevicePlan device = {
          plan.seed,
          plan.row,
          plan.temperature,
          plan.top_k,
          plan.top_p,
          plan.min_p,
          plan.repetition_penalty,
          plan.frequency_penalty,
          plan.presence_penalty,
          plan.index,
          plan.position,
          plan.num_logprobs,
          plan.vocab_limit,
          plan.forced_token,
          static_cast<int32_t>(biases.size()),
          static_cast<int32_t>(owned.bias.size()),
          static_cast<int32_t>(counts.size()),
          static_cast<int32_t>(owned.counts.size()),
          static_cast<int32_t>(banned.size()),
          static_cast<int32_t>(owned.banned.size()),
          num_tops_,
      };
      device_plans_.push_back(device);
      biases.insert(biases.end(), owned.bias.begin(), owned.bias.end());
      counts.insert(counts.end(), owned.counts.begin(), owned.counts.end());
      banned.insert(banned.end(), owned.banned.begin(), owned.banned.end());
      num_tops_ += std::max(plan.num_logprobs, 0);
      task_.max_top = std::max(task_.max_top, plan.num_logprobs);
      const bool simple =
          plan.num_logprobs < 0 && (plan.temperature == 0 || plan.forced_token >= 0);
      if (!simple) task_.greedy = 0;
    }
    Set(device_plans_, &plans_);
    Set(biases, &biases_);
    Set(counts, &counts_);
    Set(banned, &banned_);
  }

  void Append(Tape* tape) {
    const Activations logits = {logits_.data(), host_.rows, host_.vocab, host_.stride};
    Sample(tape, logits, task_, scratch_.data());
  }

  std::vector<SampledToken> Run() {
    Tape tape;
    Append(&tape);
    Play(tape);
    return Sampled();
  }

  // What the last tape that was played left.
  std::vector<SampledToken> Sampled() {
    const std::vector<float> after = logits_.Get();
    EXPECT_EQ(std::memcmp(after.data(), host_.values.data(), 4 * after.size()), 0)
        << "logits changed";
    const std::vector<TokenLogprob> tokens = sampled_.Get(), tops = tops_.Get();
    std::vector<SampledToken> sampled(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      sampled[i].token = tokens[i].token;
      sampled[i].logprob = tokens[i].logprob;
      const DevicePlan& plan = device_plans_[i];
      for (int32_t t = 0; t < plan.num_logprobs; ++t) {
        const TokenLogprob& top = tops[static_cast<size_t>(plan.first_top + t)];
        if (top.token < 0) break;
        sampled[i].top.push_back(top);
      }
    }
    return sampled;
  }

 private:
  // Arrays keep their addresses.
  template <typename T>
  static void Set(const std::vector<T>& values, DeviceArray<T>* array) {
    if (array->data() == nullptr) {
      *array = DeviceArray<T>(values, alignof(T));
    } else {
      array->Set(values);
    }
  }

  Logits& host_;
  DeviceArray<float> logits_;
  std::vector<DevicePlan> device_plans_;
  int32_t num_tops_ = 0;
  DeviceArray<DevicePlan> plans_;
  DeviceArray<TokenBias> biases_;
  DeviceArray<TokenCount> counts_;
  DeviceArray<int32_t> banned_;
  DeviceArray<TokenLogprob> sampled_;
  DeviceArray<TokenLogprob> tops_;
  DeviceArray<char> scratch_;
  SamplingTask task_;
};

std::vector<SampledToken> RunOn(Backend& backend, Logits& logits,
                                const std::vector<OwnedPlan>& plans) {
  BackendLimits limits;
  limits.max_vocab = logits.vocab;
  limits.max_samples = static_cast<int64_t>(plans.size());
  const int64_t bytes = backend.ScratchBytes(limits);
  const Buffer scratch = std::move(*backend.Allocate(bytes));
  backend.UseScratch(scratch.data(), bytes, limits);
  std::vector<SamplingPlan> views;
  for (const OwnedPlan& plan : plans) views.push_back(plan.View());
  std::vector<SampledToken> sampled(plans.size());
  backend.Sample(logits.View(), views, sampled);
  backend.UseScratch(nullptr, 0, {});
  return sampled;
}

std::unique_ptr<Backend> Cpu() {
  BackendOptions options;
  options.num_threads = 1;
  return std::move(*MakeCpuBackend(options));
}

std::string Describe(const OwnedPlan& owned, int64_t vocab) {
  const SamplingPlan& p = owned.plan;
  return absl::StrCat("vocab ", vocab, " row ", p.row, " temperature ", p.temperature, " top_k ",
                      p.top_k, " top_p ", p.top_p, " min_p ", p.min_p, " limit ", p.vocab_limit,
                      " logprobs ", p.num_logprobs, " forced ", p.forced_token, " bias ",
                      owned.bias.size(), " counts ", owned.counts.size(), " banned ",
                      owned.banned.size(), " seed ", p.seed);
}

bool SameBits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void ExpectAsCpu(Backend& cpu, Logits& logits, const std::vector<OwnedPlan>& plans) {
  const std::vector<SampledToken> want = RunOn(cpu, logits, plans);
  const std::vector<SampledToken> got = DeviceStep(logits, plans).Run();
  for (size_t i = 0; i < plans.size(); ++i) {
    SCOPED_TRACE(Describe(plans[i], logits.vocab));
    ASSERT_EQ(got[i].token, want[i].token);
    if (plans[i].plan.num_logprobs < 0) continue;
    ASSERT_TRUE(SameBits(got[i].logprob, want[i].logprob))
        << got[i].logprob << ", want " << want[i].logprob;
    ASSERT_EQ(got[i].top.size(), want[i].top.size());
    for (size_t t = 0; t < got[i].top.size(); ++t) {
      ASSERT_EQ(got[i].top[t].token, want[i].top[t].token) << "rank " << t;
      ASSERT_TRUE(SameBits(got[i].top[t].logprob, want[i].top[t].logprob)) << "rank " << t;
    }
  }
}

// --- logits of every kind ---

constexpr int kKinds = 12;

float ValueOf(int kind, Random& random) {
  switch (kind) {
    case 0:
      return 3 * random.Normal();
    case 1:
      return 0.3f * random.Normal();  // flat
    case 2:
      return 15 * random.Normal();  // peaked
    case 3:
      return static_cast<float>(random.Below(5) - 2);  // ties everywhere
    case 4:
      return 1.5f;  // nothing but ties
    case 5:
      return random.OneIn(3) ? kNan : random.OneIn(3) ? -kInf : random.Normal();
    case 6:
      return random.OneIn(40) ? kInf : random.Normal();
    case 7:
      return random.OneIn(2) ? 0.0f : -0.0f;
    case 8:
      return (random.OneIn(2) ? 1.0f : -1.0f) * kMax * random.Uniform();
    case 9:
      return random.OneIn(2) ? -kInf : kNan;  // nothing is possible
    case 10:
      return 1e-40f * random.Normal();  // subnormal
    default:
      return random.OneIn(200) ? 40.0f : -60 * random.Uniform();  // a few far above the rest
  }
}

Logits RandomLogits(int64_t rows, int64_t vocab, Random& random) {
  Logits logits(rows, vocab, random.Below(4));
  for (int64_t r = 0; r < rows; ++r) {
    const int kind = random.OneIn(2) ? random.Below(3) : random.Below(kKinds);
    for (int64_t i = 0; i < vocab; ++i) logits.Row(r)[i] = ValueOf(kind, random);
  }
  return logits;
}

int64_t RandomVocab(Random& random) {
  constexpr int64_t kEdges[] = {1,    2,    127,  128,  129,  1023, 1024, 1025,
                                2047, 2048, 2049, 3000, 4096, 4097, 5000};
  return random.OneIn(3) ? kEdges[random.Below(15)]
                         : 1 + random.Below(random.OneIn(3) ? 5000 : 600);
}

// --- plans of every kind ---

float Temperature(Random& random) {
  constexpr float kOdd[] = {0.0f, 1e-40f, 1e-6f, 1e-3f, 100.0f, 1e30f, kMax};
  if (random.OneIn(4)) return kOdd[random.Below(7)];
  return random.OneIn(5) ? 1.0f : 0.2f + 1.8f * random.Uniform();
}

void AddEdits(int32_t vocab, Random& random, OwnedPlan* owned) {
  SamplingPlan& plan = owned->plan;
  const int32_t limit = plan.vocab_limit > 0 ? std::min(plan.vocab_limit, vocab) : vocab;
  if (random.OneIn(2)) {  // some token twice, some beyond the limit
    for (int32_t i = random.Below(20); i > 0; --i) {
      const float bias = random.OneIn(9) ? -kInf : 3 * random.Normal();
      owned->bias.push_back({random.Below(std::min(vocab, 4 * i)), bias});
    }
  }
  if (random.OneIn(2)) {
    const int32_t step = 1 + random.Below(5);
    for (int32_t token = random.Below(step); token < vocab; token += step + random.Below(30)) {
      owned->counts.push_back({token, random.Below(4)});
    }
    std::reverse(owned->counts.begin(), owned->counts.end());
  }
  if (random.OneIn(2)) plan.repetition_penalty = 0.5f + 1.5f * random.Uniform();
  if (random.OneIn(2)) plan.frequency_penalty = random.Normal();
  if (random.OneIn(2)) plan.presence_penalty = random.Normal();
  if (random.OneIn(2)) {  // never all
    for (int32_t i = 0; i < std::min(limit - 1, 6); ++i) {
      owned->banned.push_back(random.OneIn(2) ? i : random.Below(limit - 1));
    }
  }
}

OwnedPlan RandomPlan(int64_t rows, int64_t vocab, Random& random) {
  const auto tokens = static_cast<int32_t>(vocab);
  OwnedPlan owned;
  SamplingPlan& plan = owned.plan;
  plan.row = random.Below(static_cast<int32_t>(rows));
  plan.temperature = Temperature(random);
  plan.seed =
      static_cast<uint64_t>(random.Below(1 << 30)) << 20 ^ static_cast<uint64_t>(random.Below(99));
  plan.index = static_cast<uint32_t>(random.Below(3));
  plan.position = static_cast<uint32_t>(random.Below(100000));
  if (random.OneIn(3)) plan.top_k = 1 + random.Below(random.OneIn(2) ? 60 : tokens + 5);
  if (random.OneIn(8)) plan.top_k = 1;
  if (random.OneIn(2)) plan.top_p = random.OneIn(4) ? 1e-6f : 0x1p-24f + random.Uniform() * 0.999f;
  if (random.OneIn(3)) plan.min_p = random.OneIn(4) ? 1.0f : 0.3f * random.Uniform();
  if (random.OneIn(9)) plan.min_p = 1e-42f;
  if (random.OneIn(3)) plan.vocab_limit = 1 + random.Below(tokens);
  if (random.OneIn(3)) plan.num_logprobs = random.Below(21);
  if (random.OneIn(8)) plan.forced_token = random.Below(tokens);
  if (random.OneIn(2)) AddEdits(tokens, random, &owned);
  return owned;
}

using Sampling = CudaTest;

TEST_F(Sampling, RandomPlansGiveTheCpusTokensAndLogprobs) {
  Random random(1);
  const std::unique_ptr<Backend> cpu = Cpu();
  ForMachineSeeds(4, [&] {
    for (int i = 0; i < 75; ++i) {
      const int64_t rows = 1 + random.Below(3), vocab = RandomVocab(random);
      Logits logits = RandomLogits(rows, vocab, random);
      std::vector<OwnedPlan> plans;
      for (int p = 0; p < 12; ++p) plans.push_back(RandomPlan(rows, vocab, random));
      ASSERT_NO_FATAL_FAILURE(ExpectAsCpu(*cpu, logits, plans));
    }
  });
}

// Equal logits: what is compared is equal now and then, and one more or less would show.
TEST_F(Sampling, SharesAndDrawsThatFallOnAnEdgeAreTheCpus) {
  struct Edge {
    int64_t vocab;
    float parts;  // draws fall between parts of the vocabulary
    uint32_t draws;
  };
  const std::unique_ptr<Backend> cpu = Cpu();
  for (const Edge& edge :
       {Edge{4, 4096, 20}, {16, 4096, 20}, {4096, 4096, 20}, {1 << 17, 128, 2}}) {
    std::vector<OwnedPlan> plans;
    for (uint32_t position = 0; plans.size() < 3 * edge.draws; ++position) {
      const float u = UniformDraw(3, 0, position);
      if (u * edge.parts != std::floor(u * edge.parts)) continue;
      for (int kind = 0; kind < 3; ++kind) {
        plans.emplace_back();
        SamplingPlan& plan = plans.back().plan;
        plan.temperature = 1;
        plan.seed = 3;
        plan.position = position;
        if (kind == 1) plan.min_p = 0.5f;
        if (kind == 2) plan.top_p = 0.25f * static_cast<float>(1 + position % 3);
        if (kind == 2 && position % 2 == 0) plan.top_k = static_cast<int32_t>(edge.vocab / 2);
      }
    }
    Logits logits(1, edge.vocab, 0);
    for (int64_t t = 0; t < edge.vocab; ++t) logits.Row(0)[t] = 1;
    ASSERT_NO_FATAL_FAILURE(ExpectAsCpu(*cpu, logits, plans));
  }
}

// One token has nearly everything: the last bits of the mass choose among 4096 that have 2^-24
// each.
TEST_F(Sampling, DrawsInALongTailCountItsLastBits) {
  Logits logits(1, 4097, 0);
  logits.Row(0)[0] = 0;
  for (int64_t t = 1; t <= 4096; ++t) logits.Row(0)[t] = -16.635532f;
  std::vector<OwnedPlan> plans;
  for (uint32_t position = 0; plans.size() < 24; ++position) {
    if (UniformDraw(3, 0, position) < 1 - 0x1p-12f) continue;
    plans.emplace_back();
    plans.back().plan.temperature = 1;
    plans.back().plan.seed = 3;
    plans.back().plan.position = position;
    if (plans.size() % 3 != 0) plans.back().plan.min_p = 1e-9f;
  }
  ExpectAsCpu(*Cpu(), logits, plans);
}

// A real vocabulary: blocks of 1024 threads, and for flat rows more likely tokens than a list
// holds.
TEST_F(Sampling, ARealVocabularyGivesTheCpusTokens) {
  constexpr int64_t kVocab = 151936;
  Random random(2);
  const std::unique_ptr<Backend> cpu = Cpu();
  Logits logits(2, kVocab, 0);
  for (int64_t i = 0; i < kVocab; ++i) {
    logits.Row(0)[i] = 2.5f * random.Normal();
    logits.Row(1)[i] = 0.2f * random.Normal();
  }
  std::vector<OwnedPlan> plans;
  for (int32_t row = 0; row < 2; ++row) {
    for (int kind = 0; kind < 7; ++kind) {
      OwnedPlan owned;
      owned.plan.row = row;
      owned.plan.temperature = kind == 0 ? 0.0f : 0.8f;
      owned.plan.seed = static_cast<uint64_t>(10 * row + kind);
      owned.plan.vocab_limit = 151643;
      if (kind == 2) owned.plan.top_k = 50;
      if (kind == 3) owned.plan.top_k = 20000;
      if (kind >= 3) owned.plan.top_p = 0.9f;
      if (kind == 5) owned.plan.min_p = 0.02f;
      if (kind == 6) AddEdits(kVocab, random, &owned);
      if (kind % 3 == 0) owned.plan.num_logprobs = 20;
      plans.push_back(owned);
    }
  }
  ExpectAsCpu(*cpu, logits, plans);
}

TEST_F(Sampling, MorePlansThanFitAtOnceAreDoneGroupByGroup) {
  constexpr int64_t kVocab = 1 << 20;
  Random random(3);
  const std::unique_ptr<Backend> cpu = Cpu();
  Logits logits = RandomLogits(1, kVocab, random);
  const int64_t group = GroupSize(1 << 20, kVocab);
  std::vector<OwnedPlan> plans(static_cast<size_t>(group + 2));
  plans[0].banned = {5, 7};
  plans[static_cast<size_t>(group)].bias = {{1 << 19, 1e6f}};
  plans.back().plan.temperature = 1;
  ASSERT_NO_FATAL_FAILURE(ExpectAsCpu(*cpu, logits, plans));
  DeviceStep step(logits, plans);
  Tape tape;
  step.Append(&tape);
  EXPECT_EQ(tape.num_entries(), 6u);
}

TEST_F(Sampling, ScratchHasABoundThatDoesNotGrowWithThePlans) {
  EXPECT_EQ(SamplingScratchBytes(0, 151936), 0);
  EXPECT_EQ(SamplingScratchBytes(512, 151936), SamplingScratchBytes(4096, 151936));
  EXPECT_LE(SamplingScratchBytes(4096, 151936), kGroupBytes + 7 * 256);
  EXPECT_LT(SamplingScratchBytes(1, 151936), 4 * 151936 + 20000);
}

TEST_F(Sampling, ARecordedStepFollowsWhatPlansSayWhenItIsReplayed) {
  Random random(4);
  Logits logits = RandomLogits(2, 3000, random);
  std::vector<OwnedPlan> plans(3);
  plans[0].plan.temperature = 1;
  plans[1].plan.num_logprobs = 0;
  DeviceStep step(logits, plans);
  Tape tape;
  step.Append(&tape);
  EXPECT_EQ(tape.num_entries(), 3u);
  for (uint32_t position = 0; position < 40; ++position) {
    for (OwnedPlan& owned : plans) {
      SamplingPlan& plan = owned.plan;
      plan.position = position;
      plan.row = random.Below(2);
      plan.temperature = Temperature(random);
      plan.top_k = random.OneIn(2) ? random.Below(50) : 0;
      plan.top_p = random.OneIn(2) ? 0.9f : 1;
    }
    step.SetPlans(plans);
    Play(tape);
    const std::vector<SampledToken> got = step.Sampled(), want = RunOn(*Cpu(), logits, plans);
    for (size_t i = 0; i < plans.size(); ++i) {
      EXPECT_EQ(got[i].token, want[i].token) << Describe(plans[i], 3000);
    }
  }
}

TEST_F(Sampling, AGreedyStepIsTwoLaunches) {
  Random random(5);
  Logits logits = RandomLogits(2, 3000, random);
  std::vector<OwnedPlan> plans(3);
  plans[1].plan.forced_token = 4;
  plans[1].plan.temperature = 1;
  DeviceStep step(logits, plans);
  Tape tape;
  step.Append(&tape);
  EXPECT_EQ(tape.num_entries(), 2u);
  ExpectAsCpu(*Cpu(), logits, plans);
}

TEST_F(Sampling, TokenMinusOneSaysThatAllAreBanned) {
  Logits logits(1, 3, 0);
  std::vector<OwnedPlan> plans(1);
  plans[0].banned = {2, 0, 1};
  EXPECT_EQ(DeviceStep(logits, plans).Run()[0].token, -1);
}

// Away from ties; logprobs as cpu_sampling_test.cc derives: sums of 64 exponentials of 2 ulp each,
// then the result's own rounding.
TEST_F(Sampling, MatchesTheReference) {
  Random random(6);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  for (int i = 0; i < 25; ++i) {
    const int64_t vocab = 1 + random.Below(2000);
    Logits logits(1, vocab, 0);
    for (int64_t t = 0; t < vocab; ++t) logits.Row(0)[t] = 3 * random.Normal();
    std::vector<OwnedPlan> plans;
    for (int p = 0; p < 20; ++p) {
      plans.push_back(RandomPlan(1, vocab, random));
      plans.back().plan.temperature = 0.3f * static_cast<float>(p % 5);
    }
    const std::vector<SampledToken> want = RunOn(*reference, logits, plans);
    const std::vector<SampledToken> got = DeviceStep(logits, plans).Run();
    for (size_t p = 0; p < plans.size(); ++p) {
      SCOPED_TRACE(Describe(plans[p], vocab));
      EXPECT_EQ(got[p].token, want[p].token);
      if (plans[p].plan.num_logprobs < 0) continue;
      EXPECT_NEAR(got[p].logprob, want[p].logprob, (70 + 2 * std::abs(want[p].logprob)) * 0x1p-24f);
      ASSERT_EQ(got[p].top.size(), want[p].top.size());
      for (size_t t = 0; t < got[p].top.size(); ++t) {
        EXPECT_EQ(got[p].top[t].token, want[p].top[t].token);
      }
    }
  }
}

}  // namespace
}  // namespace nibble::cuda
