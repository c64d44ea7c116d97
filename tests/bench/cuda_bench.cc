// How fast the CUDA backend is, as ratios taken in one process on one GPU: products against cuBLAS
// and bitsandbytes, the other operations, whole decode steps. Usage:
//   cuda_bench [--only=products,exact,ops,steps] [--out=FILE] [--bitsandbytes=LIBRARY] [--rehearse]
//   cuda_bench --table      a line for kernels/cuda/matmul_table.cc
// Writes lines of JSON (tests/bench/cuda/figures.h). Exit code: 0; 1 if copies became 3 % slower or
// faster meanwhile; 2 without a device.
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "tests/bench/cuda/bitsandbytes.h"
#include "tests/bench/cuda/figures.h"
#include "tests/bench/cuda/machine.h"
#include "tests/bench/cuda/ops.h"
#include "tests/bench/cuda/products.h"
#include "tests/bench/cuda/steps.h"

namespace nibble::bench {
namespace {

struct Options {
  std::string only = "products,exact,ops,steps";
  std::string out;
  std::string library;
  bool rehearse = false;
  bool table = false;
};

// The value of --name=value, if `arg` is that.
bool Takes(std::string_view arg, std::string_view name, std::string* value) {
  if (!arg.starts_with(name)) return false;
  *value = arg.substr(name.size());
  return true;
}

bool Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--rehearse") {
      options->rehearse = true;
    } else if (arg == "--table") {
      options->table = true;
    } else if (!Takes(arg, "--only=", &options->only) && !Takes(arg, "--out=", &options->out) &&
               !Takes(arg, "--bitsandbytes=", &options->library)) {
      return false;
    }
  }
  return true;
}

void WriteDevice(const Machine& machine, bool rehearse, Figures* figures) {
  const cuda::DeviceTraits& traits = machine.traits();
  figures->Write(Line("fact", "device")
                     .Add("gpu", traits.name)
                     .Add("compute", absl::StrCat(traits.compute_major, ".", traits.compute_minor))
                     .Add("processors", traits.num_processors)
                     .Add("l2_bytes", static_cast<double>(traits.l2_bytes))
                     .Add("memory_bytes", static_cast<double>(traits.total_bytes))
                     .Add("rehearsal", rehearse ? "yes" : "no"));
}

double CopyBandwidth(Machine* machine, const char* when, Figures* figures) {
  const absl::StatusOr<double> bandwidth = machine->CopyBandwidth();
  if (!bandwidth.ok()) {
    figures->Missing("copy bandwidth", bandwidth.status().ToString());
    return std::nan("");
  }
  figures->Write(
      Line("fact", "copy bandwidth").Add("when", when).Add("bytes_per_second", *bandwidth));
  return *bandwidth;
}

// What is asked for, between two measurements of the copy bandwidth.
int Measure(const Options& options, Machine* machine, Figures* figures) {
  const auto asked = [&](const char* part) { return options.only.find(part) != std::string::npos; };
  absl::StatusOr<std::unique_ptr<BitsAndBytes>> peer =
      BitsAndBytes::Open(options.library, machine->traits());
  if (!peer.ok()) figures->Missing("bitsandbytes", peer.status().ToString());
  const BitsAndBytes* const opened = peer.ok() ? peer->get() : nullptr;
  CopyBandwidth(machine, "warm-up", figures);
  const double before = CopyBandwidth(machine, "before", figures);
  if (asked("products")) MeasureProducts(machine, opened, before, figures);
  if (asked("exact")) MeasureExactness(machine, opened, before, figures);
  if (asked("ops")) MeasureOps(machine, before, figures);
  if (asked("steps")) MeasureSteps(machine, before, figures);
  const double after = CopyBandwidth(machine, "after", figures);
  const double change = std::abs(after / before - 1);
  figures->Write(Line("figure", "copy bandwidth change").Add("value", change));
  return options.rehearse || change <= 0.03 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: cuda_bench [--only=products,exact,ops,steps] [--out=FILE] "
                 "[--bitsandbytes=LIBRARY] [--rehearse] | --table [--rehearse]\n");
    return 2;
  }
  absl::StatusOr<std::unique_ptr<Machine>> machine =
      Machine::Open(options.rehearse ? Effort::Rehearsal() : Effort());
  if (!machine.ok()) {
    std::fprintf(stderr, "cuda_bench: %s\n", machine.status().ToString().c_str());
    return 2;
  }
  if (options.table) {
    PrintTable(machine->get());
    return 0;
  }
  Figures figures(options.out);
  WriteDevice(**machine, options.rehearse, &figures);
  return Measure(options, machine->get(), &figures);
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) { return nibble::bench::Main(argc, argv); }
