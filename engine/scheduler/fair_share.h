// Deficit round-robin in time: classes of work (a model's answers, a model's embeddings) share one
// engine thread. No clock: seconds come in as numbers.
#pragma once

#include <cstddef>
#include <vector>

namespace nibble {

// Thread rule: the engine thread. A class joins when it has work and leaves when it has none.
// 1. Every member has been given the same time, up to one quantum and one step.
// 2. Who leaves takes no credit along; its debt stays.
class FairShare {
 public:
  struct Account {
    double credit_s = 0;
    bool member = false;
  };

  explicit FairShare(double quantum_s) : quantum_s_(quantum_s) {}

  void Join(Account* account);
  void Leave(Account* account);
  bool empty() const { return members_.empty(); }

  // Whose turn it is: the next member in the round that has credit, after handing out quanta when
  // nobody has. There must be a member.
  Account* Next();
  void Charge(Account* account, double seconds) { account->credit_s -= seconds; }

 private:
  const double quantum_s_;
  std::vector<Account*> members_;
  size_t next_ = 0;
};

}  // namespace nibble
