// Runs the steps depth first, so that pieces come out in order and nothing is stored.
#include "engine/tokenizer/pre_tokenizer.h"

#include <utility>

#include "engine/check.h"

namespace nibble {
namespace {

TracedBuffer WithSpaceBefore(const TracedText& text, bool traced) {
  TracedBuffer buffer;
  buffer.text.reserve(text.text.size() + 1);
  buffer.text.push_back(' ');
  buffer.text.append(text.text);
  if (!traced) return buffer;
  buffer.origins.reserve(buffer.text.size());
  buffer.origins.push_back(text.OriginOf(0, 1));  // the space counts as the first character's
  for (size_t i = 0; i < text.text.size(); ++i) buffer.origins.push_back(text.OriginOf(i, i + 1));
  return buffer;
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<SplitStep> steps) : steps_(std::move(steps)) {
  Check(steps_.size() <= kMaxSteps, "a pre-tokenizer has at most 16 steps");
}

void PreTokenizer::Run(size_t step, const TracedText& text, bool traced, Emit emit) const {
  if (text.text.empty()) return;
  if (step == steps_.size()) return emit(text);
  if (steps_[step].add_prefix_space && text.text[0] != ' ') {
    const TracedBuffer buffer = WithSpaceBefore(text, traced);
    return Scan(step, buffer.View(), traced, emit);
  }
  Scan(step, text, traced, emit);
}

void PreTokenizer::Scan(size_t step, const TracedText& text, bool traced, Emit emit) const {
  const SplitStep& split = steps_[step];
  if (split.scanner == nullptr) return Run(step + 1, text, traced, emit);
  const std::string_view bytes = text.text;
  size_t gap = 0;  // where what no match covers yet begins
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = split.scanner(bytes, at);
    if (end == at) {
      at += utf8::Decode(bytes, at).length;
      continue;
    }
    if (split.keep_gaps) Run(step + 1, text.Slice(gap, at), traced, emit);
    if (split.keep_matches) Run(step + 1, text.Slice(at, end), traced, emit);
    at = gap = end;
  }
  if (split.keep_gaps) Run(step + 1, text.Slice(gap, bytes.size()), traced, emit);
}

}  // namespace nibble
