// The rules of the house as functions over text: which folder may include what, where preprocessor
// conditionals may stand, how long files and functions may grow. Knows nothing of the file system.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble::house {

// Everything in `text` that a source file at `path` (relative to the repository, "engine/stats.h")
// may not contain; one line each, "path:line: what, and why not".
std::vector<std::string> CheckSource(std::string_view path, std::string_view text);

// Names at the top level that the house does not have, then names that it lacks.
std::vector<std::string> CheckTopLevel(const std::vector<std::string>& names);

// What a CMakeLists.txt of the engine or the kernels links that belongs above it.
std::vector<std::string> CheckLinks(std::string_view path, std::string_view text);

}  // namespace nibble::house
