// Steps are timed by the host's clock around everything that a step is: tape, graph, and the
// sampled ids coming back.
#include "tests/bench/cuda/steps.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/cuda/random_llama.h"

namespace nibble::bench {
namespace {

LlamaForm EightBillion(bool rehearsal) {
  LlamaForm form;
  if (rehearsal) {
    form = {64, 2, 4, 2, 16, 96, 128};
    form.max_rows = 8;
    form.kv_positions = 256;
    return form;
  }
  form.kv_positions = 256 * 640;  // the most sequences, and the longest that they become
  return form;
}

LlamaForm SeventyBillion(bool rehearsal) {
  LlamaForm form = EightBillion(rehearsal);
  if (rehearsal) {
    form.layers = 3;
    return form;
  }
  form.kv_positions = 32 * 640;
  form.hidden = 8192;
  form.layers = 80;
  form.heads = 64;
  form.ffn = 28672;
  return form;
}

struct StepPlan {
  int64_t count = 1;     // sequences
  int64_t position = 0;  // of the first step
  int steps = 32;
};

// Microseconds of one step, over plan.steps of them. The first two are not counted: a graph is made
// there.
absl::StatusOr<double> TimeSteps(RandomLlama* model, const StepPlan& plan) {
  std::chrono::steady_clock::time_point begin;
  for (int step = -2; step < plan.steps; ++step) {
    if (step == 0) begin = std::chrono::steady_clock::now();
    const absl::Status status = model->Decode(plan.count, plan.position + 2 + step);
    if (!status.ok()) return status;
  }
  const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
  return time.count() / plan.steps;
}

// The models in turns; one Timing each.
absl::StatusOr<std::vector<Timing>> Turns(const std::vector<RandomLlama*>& models,
                                          const StepPlan& plan, int rounds) {
  std::vector<Timing> timings(models.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < models.size(); ++i) {
      const absl::StatusOr<double> us = TimeSteps(models[i], plan);
      if (!us.ok()) return us.status();
      timings[i].samples_us.push_back(*us);
    }
  }
  for (Timing& timing : timings) {
    const auto [low, high] =
        std::minmax_element(timing.samples_us.begin(), timing.samples_us.end());
    timing = {Median(timing.samples_us), *low, *high, timing.samples_us};
  }
  return timings;
}

void WriteSteps(const char* model, int64_t count, const Timing& timing, double roof,
                Figures* figures) {
  const double per_second = static_cast<double>(count) / (timing.median_us * 1e-6);
  figures->Write(Line("row", "decode")
                     .Add("model", model)
                     .Add("sequences", static_cast<double>(count))
                     .Add("step_us", timing.median_us)
                     .Add("min_us", timing.min_us)
                     .Add("max_us", timing.max_us)
                     .Add("tokens_per_second", per_second)
                     .Add("of_weight_roof", roof / timing.median_us));
}

void WriteRatio(const std::string& name, const Ratio& ratio, Figures* figures) {
  figures->Write(
      Line("figure", name).Add("value", ratio.median).Add("min", ratio.min).Add("max", ratio.max));
}

void WritePrefill(RandomLlama* model, const char* name, int64_t rows, Figures* figures) {
  std::vector<double> samples;
  for (int round = 0; round < 6; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    const absl::Status status = model->Prefill(rows);
    if (!status.ok()) return figures->Missing(absl::StrCat("prefill ", name), status.ToString());
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    if (round > 0) samples.push_back(time.count());
  }
  const double us = Median(samples);
  figures->Write(Line("row", "prefill")
                     .Add("model", name)
                     .Add("rows", static_cast<double>(rows))
                     .Add("step_us", us)
                     .Add("tokens_per_second", static_cast<double>(rows) / (us * 1e-6)));
}

// How far the sum of everything allocated is from what the driver says was taken.
void WriteMemory(const Machine& machine, const char* model, const RandomLlama& llama,
                 Figures* figures) {
  const auto ours = static_cast<double>(machine.AllocatedBytes());
  const auto driver = static_cast<double>(machine.DriverBytes());
  figures->Write(Line("row", "memory")
                     .Add("model", model)
                     .Add("weight_bytes_per_token", static_cast<double>(llama.weight_bytes()))
                     .Add("kv_bytes", static_cast<double>(llama.kv_bytes()))
                     .Add("ledger_bytes", ours)
                     .Add("driver_bytes", driver)
                     .Add("room_for_kv_bytes", static_cast<double>(machine.traits().total_bytes) -
                                                   driver + static_cast<double>(llama.kv_bytes()))
                     .Add("device_bytes", static_cast<double>(machine.traits().total_bytes)));
  figures->Write(Line("figure", absl::StrCat("memory ", model))
                     .Add("value", std::abs(driver - ours) / driver));
}

bool LacksMemory(const Machine& machine, int64_t needed, const char* model, Figures* figures) {
  if (machine.effort().rehearsal || machine.traits().total_bytes >= needed) return false;
  figures->Missing(model, absl::StrCat("the device has less than ", needed >> 30, " GiB"));
  return true;
}

void MeasureEightBillion(Machine* machine, double copy_bandwidth, Figures* figures) {
  const bool rehearsal = machine->effort().rehearsal;
  if (LacksMemory(*machine, int64_t{76} << 30, "8B", figures)) return;
  const size_t mark = machine->Mark();
  LlamaForm form = EightBillion(rehearsal);
  RandomLlama nf4(machine, form);
  WriteMemory(*machine, "8B nf4", nf4, figures);
  form.format = WeightFormat::kBf16;
  RandomLlama bf16(machine, form);
  const auto roof = [&](const RandomLlama& model) {
    return static_cast<double>(model.weight_bytes()) / copy_bandwidth * 1e6;
  };
  const int rounds = rehearsal ? 1 : 7;
  for (const int64_t count :
       rehearsal ? std::vector<int64_t>{1, 3} : std::vector<int64_t>{1, 8, 32, 64, 256}) {
    const StepPlan plan = {count, rehearsal ? 3 : 512, rehearsal ? 1 : 32};
    const absl::StatusOr<std::vector<Timing>> timings = Turns({&nf4, &bf16}, plan, rounds);
    if (!timings.ok()) {
      figures->Missing(absl::StrCat("decode 8B, ", count, " sequences"),
                       timings.status().ToString());
      continue;
    }
    WriteSteps("8B nf4", count, (*timings)[0], roof(nf4), figures);
    WriteSteps("8B bf16", count, (*timings)[1], roof(bf16), figures);
    const Ratio ratio = PairedRatio((*timings)[1], (*timings)[0]);
    if (count != 1) {
      WriteRatio(absl::StrCat("E2 at ", count, " sequences"), ratio, figures);
      continue;
    }
    const double us = roof(nf4);
    WriteRatio("E1",
               {us / (*timings)[0].median_us, us / (*timings)[0].max_us, us / (*timings)[0].min_us},
               figures);
    WriteRatio("E2", ratio, figures);
  }
  for (const int64_t rows : rehearsal ? std::vector<int64_t>{8} : std::vector<int64_t>{128, 512}) {
    WritePrefill(&nf4, "8B nf4", rows, figures);
    WritePrefill(&bf16, "8B bf16", rows, figures);
  }
  machine->Rewind(mark);
}

void MeasureSeventyBillion(Machine* machine, double copy_bandwidth, Figures* figures) {
  const size_t mark = machine->Mark();
  const bool rehearsal = machine->effort().rehearsal;
  if (LacksMemory(*machine, int64_t{60} << 30, "70B", figures)) return;
  RandomLlama model(machine, SeventyBillion(rehearsal));
  const double roof = static_cast<double>(model.weight_bytes()) / copy_bandwidth * 1e6;
  for (const int64_t count : rehearsal ? std::vector<int64_t>{1} : std::vector<int64_t>{1, 32}) {
    const StepPlan plan = {count, rehearsal ? 3 : 512, rehearsal ? 1 : 16};
    const absl::StatusOr<std::vector<Timing>> timings = Turns({&model}, plan, rehearsal ? 1 : 5);
    if (!timings.ok()) return figures->Missing("decode 70B", timings.status().ToString());
    const Timing& timing = (*timings)[0];
    WriteSteps("70B nf4", count, timing, roof, figures);
    if (count == 1)
      WriteRatio("E1 70B", {roof / timing.median_us, roof / timing.max_us, roof / timing.min_us},
                 figures);
  }
  WriteMemory(*machine, "70B nf4", model, figures);
  machine->Rewind(mark);
}

}  // namespace

void MeasureSteps(Machine* machine, double copy_bandwidth, Figures* figures) {
  MeasureEightBillion(machine, copy_bandwidth, figures);
  MeasureSeventyBillion(machine, copy_bandwidth, figures);
}

}  // namespace nibble::bench
