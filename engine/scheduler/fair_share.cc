// The round and its accounts.
#include "engine/scheduler/fair_share.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"

namespace nibble {

void FairShare::Join(Account* account) {
  if (account->member) return;
  account->member = true;
  account->credit_s = std::min(account->credit_s, 0.0);
  members_.push_back(account);
}

void FairShare::Leave(Account* account) {
  if (!account->member) return;
  account->member = false;
  const auto it = std::find(members_.begin(), members_.end(), account);
  const size_t gone = static_cast<size_t>(it - members_.begin());
  members_.erase(it);
  if (gone < next_) --next_;
}

FairShare::Account* FairShare::Next() {
  Check(!members_.empty(), "a turn is asked for only when someone has work");
  const auto richest = *std::max_element(
      members_.begin(), members_.end(),
      [](const Account* a, const Account* b) { return a->credit_s < b->credit_s; });
  if (richest->credit_s <= 0) {
    // As many whole quanta at once as it takes until someone has credit.
    const double rounds = std::floor(-richest->credit_s / quantum_s_) + 1;
    for (Account* member : members_) member->credit_s += rounds * quantum_s_;
  }
  for (;; ++next_) {
    if (next_ >= members_.size()) next_ = 0;
    if (members_[next_]->credit_s > 0) return members_[next_++];
  }
}

}  // namespace nibble
