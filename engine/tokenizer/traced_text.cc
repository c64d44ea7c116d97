// Between bytes and characters.
#include "engine/tokenizer/traced_text.h"

namespace nibble {

std::vector<TracedCharacter> ToCharacters(const TracedText& in, bool traced) {
  std::vector<TracedCharacter> characters;
  characters.reserve(in.text.size());
  for (size_t at = 0; at < in.text.size();) {
    const utf8::Decoded c = utf8::Decode(in.text, at);
    characters.push_back({c.code, traced ? in.OriginOf(at, at + c.length) : Origin{}});
    at += c.length;
  }
  return characters;
}

void ToText(const std::vector<TracedCharacter>& characters, bool traced, TracedBuffer* out) {
  out->text.clear();
  out->origins.clear();
  out->text.reserve(characters.size());
  if (traced) out->origins.reserve(characters.size());
  for (const TracedCharacter& c : characters) {
    utf8::Append(c.code, &out->text);
    if (traced) out->origins.resize(out->text.size(), c.origin);
  }
}

}  // namespace nibble
