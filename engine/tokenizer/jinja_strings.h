// String literals of a template: Python's escapes.
#pragma once

#include <string>
#include <string_view>

namespace nibble::jinja {

// Appends what the literal between the quotes means. Returns what is wrong with it, or nothing.
std::string Unescape(std::string_view literal, std::string* text);

}  // namespace nibble::jinja
