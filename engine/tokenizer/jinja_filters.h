// What the two files of filters share.
#pragma once

#include <map>
#include <string_view>

#include "engine/tokenizer/jinja_calls.h"

namespace nibble::jinja {

using Filters = std::map<std::string_view, Filter>;

const Filters& ScalarFilters();      // of one value: text, numbers, JSON
const Filters& CollectionFilters();  // of what can be walked over

}  // namespace nibble::jinja
