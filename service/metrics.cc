#include "service/metrics.h"

#include <prometheus/metric_family.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "service/version.h"

namespace nibble {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// The families under way, in the order in which they were first named.
class Families {
 public:
  void Counter(const char* name, const char* help, Labels labels, int64_t value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.counter.value = static_cast<double>(value);
    Family(name, help, MetricType::Counter).metric.push_back(std::move(metric));
  }

  void Gauge(const char* name, const char* help, Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    Family(name, help, MetricType::Gauge).metric.push_back(std::move(metric));
  }

  void Add(const char* name, const char* help, Labels labels, const Histogram& histogram) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.histogram.sample_count = static_cast<uint64_t>(histogram.count());
    metric.histogram.sample_sum = histogram.sum();
    uint64_t cumulative = 0;
    for (size_t i = 0; i < histogram.counts().size(); ++i) {
      cumulative += static_cast<uint64_t>(histogram.counts()[i]);
      ClientMetric::Bucket bucket;
      bucket.cumulative_count = cumulative;
      bucket.upper_bound = i < histogram.bounds().size() ? histogram.bounds()[i]
                                                         : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back(bucket);
    }
    Family(name, help, MetricType::Histogram).metric.push_back(std::move(metric));
  }

  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  MetricFamily& Family(const char* name, const char* help, MetricType type) {
    for (MetricFamily& family : families_) {
      if (family.name == name) return family;
    }
    MetricFamily& family = families_.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
    return family;
  }

  std::vector<MetricFamily> families_;
};

void AddLatencies(const std::string& model, const ModelStats& stats, Families* out) {
  const Labels labels = {{"model", model}};
  out->Add("nibble_time_to_first_token_seconds", "From a request's arrival to its first token.",
           labels, stats.time_to_first_token);
  out->Add("nibble_inter_token_latency_seconds", "Every gap between two tokens of one answer.",
           labels, stats.inter_token_latency);
  out->Add("nibble_request_prefill_time_seconds",
           "From a request's first computed row to its first token.", labels, stats.prefill_time);
  out->Add("nibble_request_decode_time_seconds", "From a request's first token to its last.",
           labels, stats.decode_time);
  for (const Operation op : {Operation::kGenerate, Operation::kEmbed}) {
    const Labels with_op = {{"model", model}, {"op", Name(op)}};
    const size_t i = static_cast<size_t>(op);
    out->Add("nibble_e2e_request_latency_seconds", "From a request's arrival to its end.", with_op,
             stats.e2e_latency[i]);
    out->Add("nibble_request_queue_time_seconds",
             "From a request's arrival to its first computed row.", with_op, stats.queue_time[i]);
    out->Add("nibble_request_prompt_tokens", "Prompt tokens of a request.", with_op,
             stats.prompt_tokens[i]);
  }
  for (const auto& [phase, histogram] : stats.step_seconds) {
    out->Add("nibble_step_seconds", "Time of one engine step.",
             {{"model", model}, {"phase", phase}}, histogram);
  }
  out->Add("nibble_request_generation_tokens", "Tokens generated for one answer.", labels,
           stats.generation_tokens);
  out->Add("nibble_step_rows", "Tokens computed in one engine step.", labels, stats.step_rows);
}

void AddCounts(const std::string& model, const ModelStats& stats, Families* out) {
  const Labels labels = {{"model", model}};
  for (const auto& [reason, count] : stats.finished) {
    out->Counter("nibble_finished_total", "Answers and embed calls that ended, by reason.",
                 {{"model", model}, {"reason", reason}}, count);
  }
  for (const auto& [path, count] : stats.gemm_calls) {
    out->Counter("nibble_gemm_calls_total", "Matrix products, by the form of the weights.",
                 {{"model", model}, {"path", path}}, count);
  }
  for (const Operation op : {Operation::kGenerate, Operation::kEmbed}) {
    const Labels with_op = {{"model", model}, {"op", Name(op)}};
    const size_t i = static_cast<size_t>(op);
    out->Counter("nibble_prompt_tokens_total", "Prompt tokens taken in.", with_op,
                 stats.prompt_tokens_total[i]);
    out->Gauge("nibble_num_requests_running", "Requests that have rows in the engine's steps.",
               with_op, static_cast<double>(stats.running[i]));
    out->Gauge("nibble_num_requests_waiting", "Requests that wait for their first step.", with_op,
               static_cast<double>(stats.waiting[i]));
  }
  out->Counter("nibble_generation_tokens_total", "Tokens generated.", labels,
               stats.generation_tokens_total);
  out->Counter("nibble_preemptions_total",
               "Times that a running request lost its pages and is computed again.", labels,
               stats.preemptions_total);
  out->Gauge("nibble_kv_cache_usage_ratio", "Pages of the KV cache in use, 0 to 1.", labels,
             stats.kv_usage_ratio);
}

void AddMemory(const EngineStats& stats, Families* out) {
  for (const Ledger::Entry& entry : stats.memory) {
    const std::string device = IsHostMemory(entry.kind) ? "cpu" : stats.device;
    out->Gauge("nibble_memory_bytes", "Bytes held, by owner, device and kind.",
               {{"model", entry.owner}, {"device", device}, {"kind", Name(entry.kind)}},
               static_cast<double>(entry.bytes));
  }
  out->Gauge("nibble_memory_budget_bytes", "Bytes that may be held at most.",
             {{"device", stats.device}}, static_cast<double>(stats.memory_budget_bytes));
  const ProcessMemory process = ReadProcessMemory();
  const std::pair<const char*, int64_t> kinds[] = {
      {"resident", process.resident}, {"anonymous", process.anonymous}, {"file", process.file}};
  for (const auto& [kind, bytes] : kinds) {
    out->Gauge("nibble_process_memory_bytes", "Bytes of the process as the kernel counts them.",
               {{"kind", kind}}, static_cast<double>(bytes));
  }
}

// Codes that mean "not run": the request was turned away before it had a row in any step.
bool IsRefusal(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return true;
    default:
      return false;
  }
}

}  // namespace

ProcessMemory ReadProcessMemory() {
  ProcessMemory memory;
  std::ifstream status("/proc/self/status");
  const std::pair<const char*, int64_t*> fields[] = {
      {"VmRSS:", &memory.resident}, {"RssAnon:", &memory.anonymous}, {"RssFile:", &memory.file}};
  std::string line;
  while (std::getline(status, line)) {
    for (const auto& [name, target] : fields) {
      long long kilobytes = 0;
      if (line.starts_with(name) &&
          std::sscanf(line.c_str() + std::string_view(name).size(), "%lld", &kilobytes) == 1) {
        *target = kilobytes * 1024;
      }
    }
  }
  return memory;
}

void Metrics::Attach(const Engine* engine) {
  absl::MutexLock lock(&mutex_);
  engine_ = engine;
}

void Metrics::Detach() { Attach(nullptr); }

void Metrics::Count(const RequestRecord& record) {
  absl::MutexLock lock(&mutex_);
  ++requests_[{record.model, record.op, CodeName(record.code)}];
  if (IsRefusal(record.code)) ++rejections_[{record.model, record.reason}];
}

std::vector<MetricFamily> Metrics::Collect() const {
  absl::MutexLock lock(&mutex_);
  Families out;
  if (engine_ == nullptr) return out.Take();
  const EngineStats stats = engine_->Stats();
  out.Gauge("nibble_build_info", "What runs here; always 1.",
            {{"version", kVersion}, {"isa", engine_->isa()}}, 1);
  for (const ModelDescription& model : engine_->ListModels()) {
    if (model.state == ModelState::kLoading) continue;
    out.Gauge("nibble_model_info", "A loaded model's form; always 1.",
              {{"model", model.name},
               {"weights", Name(model.options.weights.value_or(WeightFormat::kNf4))},
               {"compute", model.compute},
               {"device", model.device},
               {"architecture", model.config.architecture_name}},
              1);
  }
  AddMemory(stats, &out);
  for (const auto& [name, model] : stats.models) {
    AddLatencies(name, model, &out);
    AddCounts(name, model, &out);
  }
  const auto gone = [&](const std::string& model) {
    return !model.empty() && !stats.models.contains(model);
  };
  std::erase_if(requests_, [&](const auto& entry) { return gone(std::get<0>(entry.first)); });
  std::erase_if(rejections_, [&](const auto& entry) { return gone(entry.first.first); });
  for (const auto& [key, count] : requests_) {
    const auto& [model, op, code] = key;
    out.Counter("nibble_requests_total", "RPCs that ended, by operation and gRPC code.",
                {{"model", model}, {"op", op}, {"code", code}}, count);
  }
  for (const auto& [key, count] : rejections_) {
    out.Counter("nibble_rejections_total", "Requests refused before they ran, by reason.",
                {{"model", key.first}, {"reason", key.second}}, count);
  }
  return out.Take();
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const std::string& address, std::shared_ptr<Metrics> metrics) {
  auto endpoint = std::make_unique<MetricsEndpoint>();
  // The one exception that a library throws at us here: civetweb could not bind.
  try {
    endpoint->exposer_ = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("--metrics ", address, ": cannot listen there (", error.what(), ")"));
  }
  endpoint->metrics_ = std::move(metrics);
  endpoint->exposer_->RegisterCollectable(endpoint->metrics_);
  return endpoint;
}

int MetricsEndpoint::port() const {
  const std::vector<int> ports = exposer_->GetListeningPorts();
  return ports.empty() ? 0 : ports.front();
}

}  // namespace nibble
