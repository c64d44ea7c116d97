// The metadata fields of a GGUF file, read into GgufFile. Only gguf.cc calls this.
#pragma once

#include <cstdint>

#include "engine/loader/byte_reader.h"
#include "engine/loader/gguf.h"

namespace nibble {

// Reads `count` fields into out.fields and out.arrays; out.name is set. Failures stay in the
// reader.
void ReadGgufFields(uint64_t count, ByteReader& reader, GgufFile& out);

}  // namespace nibble
