// `nibble bench`: the three measurements, each in its own file.
#include <cstdio>

#include "service/bench.h"
#include "service/commands.h"

namespace nibble {

int RunBench(const Arguments& args) {
  if (!args.empty() && args[0] == "model") return RunBenchModel({args.begin() + 1, args.end()});
  if (!args.empty() && args[0] == "serve") return RunBenchServe({args.begin() + 1, args.end()});
  if (!args.empty() && args[0] == "kernels") {
    return RunBenchKernels({args.begin() + 1, args.end()});
  }
  const bool help = !args.empty() && (args[0] == "--help" || args[0] == "-h");
  std::fprintf(help ? stdout : stderr,
               "usage: nibble bench model PATH [flags]   a model in this process, without gRPC\n"
               "       nibble bench serve [flags]        a running server, as its clients see it\n"
               "       nibble bench kernels [flags]      this CPU's products beside its peaks\n"
               "(each tells its flags with --help)\n");
  return help ? 0 : 2;
}

}  // namespace nibble
