// Unicode's canonical decomposition and composition, with Hugging Face's way of telling where a
// character came from. Decompositions and classes are utf8proc's, less what the library's own
// tables are too old to know.
#pragma once

#include <string_view>
#include <vector>

#include "engine/tokenizer/traced_text.h"

namespace nibble {

// Whether NFC leaves the text as it is; may say false of a text that NFC does not change.
bool IsPlainlyComposed(std::string_view text);

void ToNfd(std::vector<TracedCharacter>* characters);
void ToNfc(std::vector<TracedCharacter>* characters);

}  // namespace nibble
