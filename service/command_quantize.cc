// `nibble quantize SRC DST`: a model written out as a bitsandbytes checkpoint.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "engine/quantize/quantize.h"
#include "service/client.h"
#include "service/commands.h"
#include "service/progress.h"

namespace nibble {
namespace {

int Quantize(const std::string& source, const std::string& destination,
             const QuantizeOptions& options) {
  const absl::Time start = absl::Now();
  Progress bar("quantizing", stderr, isatty(2) == 1);
  const auto result =
      QuantizeCheckpoint(source, destination, options,
                         [&](int64_t done, int64_t all) { bar.Update(done, all, absl::Now()); });
  if (!result.ok()) return ReportFailure("quantize", result.status());
  std::printf("%s: %lld matrices in %s, %s of tensors from %s, %.1f s", destination.c_str(),
              static_cast<long long>(result->matrices), Name(options.format),
              FormatBytes(result->destination_bytes).c_str(),
              FormatBytes(result->source_bytes).c_str(),
              absl::ToDoubleSeconds(absl::Now() - start));
  if (result->tensors_taken_up > 0) {
    std::printf(" (%lld tensors were there already)",
                static_cast<long long>(result->tensors_taken_up));
  }
  std::printf("\n");
  return 0;
}

}  // namespace

int RunQuantize(const Arguments& args) {
  std::string source, destination, type = "nf4", skip = "lm_head";
  QuantizeOptions options;
  options.num_threads = 0;
  Flags flags("nibble quantize SRC DST [flags]",
              "Writes the model at SRC (a Hugging Face directory or a .gguf file) to the new "
              "directory DST, its linear layers quantized, as a checkpoint that transformers with "
              "bitsandbytes loads. Works in DST.partial; started again after a kill, it goes on "
              "where it was.");
  flags.AddPositional(&source);
  flags.AddPositional(&destination);
  flags.Group("Format");
  flags.AddChoice("type", &type, {"nf4", "fp4", "int8"}, "What to quantize to. Default: nf4.");
  flags.Add("group-size", &options.group_size, "N",
            "Weights that share a scale: 32, 64, 128 ... 4096.");
  flags.Add("double-quant", &options.double_quant, "Hold the scales in 8 bits.");
  flags.Add("scale-search", &options.scale_search,
            "Choose each scale for the least squared error instead of the largest weight: slower, "
            "closer to the original, read by everyone.");
  flags.Add("skip", &skip, "NAME,...", "Modules that stay in 16 bits. Default: lm_head.");
  flags.Group("Machine");
  flags.Add("threads", &options.num_threads, "N", "CPU threads; 0: all.");
  flags.AddBytes("shard-bytes", &options.max_shard_bytes,
                 "Largest file of tensors; 5 GB by default.");
  int code = 0;
  if (!ParseOrExplain("quantize", &flags, args, &code)) return code;
  if (source.empty() || destination.empty() || options.max_shard_bytes <= 0) {
    std::fprintf(stderr, "nibble quantize: %s\n(nibble quantize --help tells the flags)\n",
                 options.max_shard_bytes <= 0 ? "--shard-bytes must be positive"
                                              : "SRC and DST are required");
    return 2;
  }
  options.format = type == "int8"  ? WeightFormat::kInt8
                   : type == "fp4" ? WeightFormat::kFp4
                                   : WeightFormat::kNf4;
  options.skip_modules = absl::StrSplit(skip, ',', absl::SkipEmpty());
  if (options.num_threads <= 0) {
    options.num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  return Quantize(source, destination, options);
}

}  // namespace nibble
