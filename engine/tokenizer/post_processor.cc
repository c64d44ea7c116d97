// Steps run in their order, each over what the one before left.
#include "engine/tokenizer/post_processor.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

void Trim(bool add_prefix_space, const std::vector<TokenPadding>& padding,
          std::vector<TokenOffset>* offsets) {
  for (size_t i = 0; i < offsets->size(); ++i) {
    TokenOffset& offset = (*offsets)[i];
    int64_t leading = padding[i].leading;
    if (leading == 1 && add_prefix_space && (i == 0 || offset.begin == 0)) leading = 0;
    offset.begin = std::min(offset.begin + leading, offset.end);
    const int64_t trailing = padding[i].trailing;
    if (offset.end >= trailing) offset.end = std::max(offset.end - trailing, offset.begin);
  }
}

template <typename T>
void Surround(size_t before, size_t after, std::vector<T>* list) {
  list->insert(list->begin(), before, T{});
  list->insert(list->end(), after, T{});
}

}  // namespace

PostProcessor::PostProcessor(std::vector<PostStep> steps) : steps_(std::move(steps)) {}

void PostProcessor::Process(bool add_special_tokens, bool traced, std::vector<TokenPadding> padding,
                            Encoding* encoding) const {
  for (const PostStep& step : steps_) {
    if (traced && step.trim_offsets) Trim(step.add_prefix_space, padding, &encoding->offsets);
    if (!add_special_tokens) continue;
    std::vector<int32_t>& ids = encoding->ids;
    ids.insert(ids.begin(), step.before.begin(), step.before.end());
    ids.insert(ids.end(), step.after.begin(), step.after.end());
    if (!traced) continue;
    Surround(step.before.size(), step.after.size(), &encoding->offsets);
    Surround(step.before.size(), step.after.size(), &padding);
  }
}

int64_t PostProcessor::MemoryBytes() const {
  size_t bytes = steps_.capacity() * sizeof(PostStep);
  for (const PostStep& step : steps_) {
    bytes += (step.before.capacity() + step.after.capacity()) * sizeof(int32_t);
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace nibble
