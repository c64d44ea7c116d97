// `nibble bench model PATH`: prefill and decode rates of one model in this process, through the
// engine but not gRPC.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "service/bench.h"
#include "service/bench_report.h"
#include "service/client.h"
#include "service/model_spec.h"

namespace nibble {
namespace {

// Remembers when each of one request's tokens came.
class TimingSink : public TokenSink {
 public:
  void OnChunk(GenerateChunk chunk) override {
    absl::MutexLock lock(&mutex_);
    times_.insert(times_.end(), chunk.token_ids.size(), absl::Now());
  }
  void OnEmbedding(EmbedResult) override {}
  void OnDone(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    done_ = true;
    if (times_.empty()) times_ = {absl::Now()};
  }

  absl::Status Wait() { return WaitForTokens(std::numeric_limits<size_t>::max()); }
  // Until so many tokens came, or the answer ended.
  absl::Status WaitForTokens(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return done_ || times_.size() >= count;
    };
    mutex_.Await(absl::Condition(&enough));
    return status_;
  }
  // When each token came, in order; never empty once the answer is done.
  std::vector<absl::Time> times() const {
    absl::MutexLock lock(&mutex_);
    return times_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<absl::Time> times_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

struct BenchModelOptions {
  std::string path, batches = "1,4,16,32", compare, compute = "auto";
  ModelFlags model;
  EngineOptions engine;
  int64_t prompt_tokens = 512, decode_tokens = 64, context_tokens = 16, repetitions = 5;
  bool json = false;
};

class ModelBench {
 public:
  ModelBench(Engine* engine, const ModelDescription& model, const BenchModelOptions& options)
      : engine_(engine), model_(model), options_(options) {}

  absl::Status Run(BenchReport* report) {
    if (model_.can_generate) {
      if (const absl::Status status = Prefill(report); !status.ok()) return status;
      for (const auto& text : absl::StrSplit(options_.batches, ',', absl::SkipEmpty())) {
        int batch = 0;
        if (!absl::SimpleAtoi(text, &batch) || batch < 1 || batch > 4096) {
          return absl::InvalidArgumentError(
              absl::StrCat("--batches: \"", text, "\" is no batch size"));
        }
        if (const absl::Status status = Decode(batch, report); !status.ok()) return status;
      }
    }
    return model_.can_embed ? Embed(report) : absl::OkStatus();
  }

 private:
  std::vector<int32_t> RandomTokens(int64_t count) {
    std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(model_.vocabulary) - 1);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    for (int32_t& id : ids) id = token(random_);
    return ids;
  }

  struct Asked {
    RequestId id;
    std::shared_ptr<TimingSink> sink;
  };
  absl::StatusOr<Asked> Ask(int64_t prompt, int64_t answer) {
    GenerateRequest request;
    request.model = model_.name;
    request.prompt = TokenPrompt{RandomTokens(prompt)};
    request.sampling.temperature = 0.0f;
    request.stopping.max_tokens = static_cast<int32_t>(answer);
    request.stopping.ignore_eos = true;
    auto sink = std::make_shared<TimingSink>();
    const auto id = engine_->Submit(std::move(request), sink);
    if (!id.ok()) return id.status();
    return Asked{*id, sink};
  }

  // Median seconds from Submit to the first token of a prompt of `length` tokens.
  absl::StatusOr<double> TimeToFirstToken(int64_t length) {
    std::vector<double> seconds;
    for (int64_t i = 0; i < options_.repetitions; ++i) {
      const absl::Time start = absl::Now();
      const auto asked = Ask(length, 1);
      if (!asked.ok()) return asked.status();
      if (const absl::Status status = asked->sink->Wait(); !status.ok()) return status;
      seconds.push_back(absl::ToDoubleSeconds(asked->sink->times().front() - start));
    }
    return Quantile(seconds, 0.5);
  }

  absl::Status Prefill(BenchReport* report) {
    const int64_t length = std::min(options_.prompt_tokens, model_.max_context - 1);
    const auto prefill = TimeToFirstToken(length);
    if (!prefill.ok()) return prefill.status();
    const auto first = TimeToFirstToken(30);
    if (!first.ok()) return first.status();
    report->Add(absl::StrCat("prefill_", length, "_tokens_per_second"),
                static_cast<double>(length) / *prefill);
    report->Add("time_to_first_token_prompt_30_ms", *first * 1e3);
    return absl::OkStatus();
  }

  // Answers begin one after another, so the first go on until the last has its tokens.
  absl::Status Decode(int batch, BenchReport* report) {
    constexpr int64_t kLongestAnswer = 8;  // times the tokens that are measured
    const int64_t longest = std::min(kLongestAnswer * options_.decode_tokens,
                                     model_.max_context - options_.context_tokens);
    const auto tokens = static_cast<size_t>(options_.decode_tokens);
    std::vector<double> rates;
    for (int64_t i = 0; i < options_.repetitions; ++i) {
      std::vector<Asked> all;
      for (int b = 0; b < batch; ++b) {
        auto asked = Ask(options_.context_tokens, longest);
        if (!asked.ok()) return asked.status();
        all.push_back(*std::move(asked));
      }
      for (const Asked& asked : all) {
        const absl::Status status = asked.sink->WaitForTokens(tokens);
        if (!status.ok()) return status;
      }
      for (const Asked& asked : all) engine_->Cancel(asked.id, absl::CancelledError("measured"));
      std::vector<std::vector<absl::Time>> answers;
      for (const Asked& asked : all) {
        const absl::Status status = asked.sink->Wait();
        if (!status.ok() && !absl::IsCancelled(status)) return status;
        answers.push_back(asked.sink->times());
      }
      rates.push_back(SharedRate(answers));
    }
    report->Add(absl::StrCat("decode_batch_", batch, "_tokens_per_second"), Quantile(rates, 0.5));
    return absl::OkStatus();
  }

  absl::Status Embed(BenchReport* report) {
    for (const auto& [texts, tokens] : {std::pair{64, 32}, {32, 128}, {1, 16}}) {
      std::vector<double> rates;
      for (int64_t i = 0; i < options_.repetitions; ++i) {
        EmbedRequest request;
        request.model = model_.name;
        for (int t = 0; t < texts; ++t) request.inputs.push_back(TokenPrompt{RandomTokens(tokens)});
        auto sink = std::make_shared<TimingSink>();
        const absl::Time start = absl::Now();
        const auto id = engine_->Submit(std::move(request), sink);
        if (!id.ok()) return id.status();
        if (const absl::Status status = sink->Wait(); !status.ok()) return status;
        rates.push_back(texts / absl::ToDoubleSeconds(absl::Now() - start));
      }
      report->Add(absl::StrCat("embed_", texts, "_texts_of_", tokens, "_tokens_texts_per_second"),
                  Quantile(rates, 0.5));
    }
    return absl::OkStatus();
  }

  Engine* const engine_;
  const ModelDescription model_;
  const BenchModelOptions& options_;
  std::mt19937 random_{1};
};

int Measure(const BenchModelOptions& options, const ModelOptions& model_options) {
  auto engine = Engine::Create(options.engine);
  if (!engine.ok()) return ReportFailure("bench model", engine.status());
  const absl::Time start = absl::Now();
  auto model =
      (*engine)->LoadModel({.name = "model", .source = options.path, .options = model_options},
                           [](const LoadProgress&) {});
  if (!model.ok()) return ReportFailure("bench model", model.status());
  BenchReport report;
  report.AddText("isa", (*engine)->isa());
  report.AddText("weights", Name(model->options.weights.value_or(WeightFormat::kNf4)));
  report.AddText("head", Name(model->options.head));
  report.Add("threads", (*engine)->num_threads());
  report.Add("load_seconds", absl::ToDoubleSeconds(absl::Now() - start));
  report.Add("memory_bytes", static_cast<double>(model->memory.Total()));
  report.Add("weights_bytes", static_cast<double>(model->memory.Total(MemoryKind::kWeights)));
  report.Add("embeddings_bytes", static_cast<double>(model->memory.Total(MemoryKind::kEmbeddings)));
  absl::Status status = ModelBench(engine->get(), *model, options).Run(&report);
  if (status.ok()) status = report.Print(options.json, options.compare);
  return status.ok() ? 0 : ReportFailure("bench model", status);
}

}  // namespace

int RunBenchModel(const Arguments& args) {
  BenchModelOptions options;
  Flags flags(
      "nibble bench model PATH [flags]",
      "Loads a model in this process and measures prefill, decode and embedding rates. Figures are "
      "medians.");
  flags.AddPositional(&options.path);
  flags.Group("Measurement");
  flags.Add("prompt-tokens", &options.prompt_tokens, "N",
            "Length of the prompt for the prefill rate.");
  flags.Add("decode-tokens", &options.decode_tokens, "N",
            "Tokens of each answer that the decode rates are taken from.");
  flags.Add("context-tokens", &options.context_tokens, "N",
            "Length of the prompt before each answer.");
  flags.Add("batches", &options.batches, "LIST", "Answers at once, for the decode rates.");
  flags.Add("repetitions", &options.repetitions, "N", "Runs per figure.");
  flags.Add("json", &options.json, "One JSON object.");
  flags.Add("compare", &options.compare, "FILE",
            "An earlier --json output to show ratios against.");
  AddModelFlags(&flags, &options.model);
  flags.Group("Machine");
  flags.Add("device", &options.engine.backend.device, "auto|cpu|cuda:0", "Where to compute.");
  flags.Add("threads", &options.engine.backend.num_threads, "N", "CPU threads; 0: all.");
  flags.Add("cpu-isa", &options.engine.backend.cpu_isa,
            "scalar|avx2|avx2_vnni|avx512|avx512_vnni|avx512_bf16|amx",
            "Force one; empty: the best.");
  flags.AddChoice("compute", &options.compute, {"auto", "fp32", "bf16", "int8"},
                  "Arithmetic of products; auto: bf16 on a GPU, with AMX, on AMD with AVX512_BF16, "
                  "else fp32.");
  flags.Add("batch-invariant", &options.engine.backend.batch_invariant,
            "Multiply one way whatever the number of rows.");
  flags.Add("max-step-rows", &options.engine.limits.max_rows, "TOKENS", "Most tokens of one step.");
  flags.Add("step-budget-ms", &options.engine.step_budget_ms, "MS", "Planned length of a step.");
  int code = 0;
  if (!ParseOrExplain("bench model", &flags, args, &code)) return code;
  options.engine.backend.compute = ComputeNamed(options.compute).value();
  const auto model_options = ToModelOptions(options.model);
  if (options.path.empty() || options.decode_tokens < 2 || options.repetitions < 1 ||
      !model_options.ok()) {
    std::fprintf(stderr, "nibble bench model: %s\n(nibble bench model --help tells the flags)\n",
                 options.path.empty() ? "PATH is required"
                 : model_options.ok() ? "--decode-tokens must be at least 2, --repetitions 1"
                                      : std::string{model_options.status().message()}.c_str());
    return 2;
  }
  return Measure(options, *model_options);
}

}  // namespace nibble
