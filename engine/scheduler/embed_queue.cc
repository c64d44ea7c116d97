// Round after round over the requests of one setting, until the step is full.
#include "engine/scheduler/embed_queue.h"

#include <algorithm>

#include "engine/check.h"

namespace nibble {

void EmbedQueue::Remove(Packable* request) {
  const auto it = std::find(requests_.begin(), requests_.end(), request);
  if (it != requests_.end()) requests_.erase(it);
}

void EmbedQueue::Plan(const PackLimits& limits, std::vector<PackedInput>* taken) {
  taken->clear();
  if (requests_.empty()) return;
  Packable* const head = requests_.front();
  alike_.clear();
  for (Packable* request : requests_) {
    if (request->settings == head->settings) alike_.push_back(request);
  }
  int64_t rows = 0;
  const auto try_take = [&](Packable* request) {
    if (request->all_taken() || static_cast<int64_t>(taken->size()) == limits.max_inputs) {
      return false;
    }
    const int64_t wanted = request->input_rows[request->next_input];
    Check(wanted <= limits.max_rows, "an input fits one step");
    if (!taken->empty() && rows + wanted > std::min(limits.rows_wanted, limits.max_rows)) {
      return false;
    }
    taken->push_back({request, request->next_input++});
    rows += wanted;
    return true;
  };
  for (bool any = true; any;) {
    any = false;
    for (Packable* request : alike_) any |= try_take(request);
  }
  requests_.pop_front();
  requests_.push_back(head);
  std::erase_if(requests_, [](const Packable* request) { return request->all_taken(); });
}

}  // namespace nibble
