// The commands of the one binary. Each takes what follows its name and returns the exit code:
// 0 done, 1 failed (message on stderr), 2 wrong usage.
#pragma once

#include <string>
#include <vector>

namespace nibble {

using Arguments = std::vector<std::string>;

int RunServe(const Arguments& args);
int RunGenerate(const Arguments& args);
int RunEmbed(const Arguments& args);
int RunHealth(const Arguments& args);
int RunInspect(const Arguments& args);
int RunQuantize(const Arguments& args);
int RunBench(const Arguments& args);

}  // namespace nibble
