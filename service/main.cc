// One binary, one command each; this file is their table of contents.
#include <cstdio>
#include <string>
#include <string_view>

#include "service/commands.h"
#include "service/version.h"

namespace {

struct Command {
  std::string_view name;
  int (*run)(const nibble::Arguments& args);
  std::string_view summary;
};

constexpr Command kCommands[] = {
    {"serve", nibble::RunServe, "load models and answer Generate and Embed over gRPC"},
    {"generate", nibble::RunGenerate, "ask a running server for text, streamed"},
    {"embed", nibble::RunEmbed, "ask a running server for embeddings, or for a similarity table"},
    {"health", nibble::RunHealth, "ask a running server whether it serves (for probes)"},
    {"inspect", nibble::RunInspect, "show a model's tensors and memory plan; loads nothing"},
    {"quantize", nibble::RunQuantize, "write a model as a bitsandbytes checkpoint"},
    {"bench", nibble::RunBench, "measure a model, or a running server"},
};

int PrintUsage(std::FILE* out, int code) {
  std::fprintf(out,
               "nibble %s: a gRPC server for language and embedding models in 4-bit NF4\n\n"
               "usage: nibble COMMAND [flags]      (nibble COMMAND --help tells the flags)\n\n",
               nibble::kVersion);
  for (const Command& command : kCommands) {
    std::fprintf(out, "  %-10s %s\n", command.name.data(), command.summary.data());
  }
  std::fprintf(out, "\nexit codes: 0 done, 1 failed, 2 wrong usage\n");
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return PrintUsage(stderr, 2);
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") return PrintUsage(stdout, 0);
  if (name == "--version") {
    std::printf("nibble %s\n", nibble::kVersion);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (command.name == name) return command.run(nibble::Arguments(argv + 2, argv + argc));
  }
  std::fprintf(stderr, "nibble: unknown command \"%s\"\n\n", argv[1]);
  return PrintUsage(stderr, 2);
}
