// Time is shared equally, whatever a step takes.
#include "engine/scheduler/fair_share.h"

#include <gtest/gtest.h>

#include <map>

namespace nibble {
namespace {

using Account = FairShare::Account;

TEST(FairShare, AlternatesBetweenEqualClasses) {
  FairShare share(0.05);
  Account a, b;
  share.Join(&a);
  share.Join(&b);
  Account* last = nullptr;
  for (int turn = 0; turn < 20; ++turn) {
    Account* const next = share.Next();
    EXPECT_NE(next, last);
    share.Charge(next, 0.05);
    last = next;
  }
}

TEST(FairShare, GivesEachTheSameTimeWhateverItsStepsTake) {
  FairShare share(0.05);
  Account a, b, c;
  const std::map<Account*, double> step_s = {{&a, 0.002}, {&b, 0.05}, {&c, 0.013}};
  std::map<Account*, double> given_s;
  for (auto* account : {&a, &b, &c}) share.Join(account);
  for (int turn = 0; turn < 10000; ++turn) {
    Account* const next = share.Next();
    share.Charge(next, step_s.at(next));
    given_s[next] += step_s.at(next);
  }
  EXPECT_NEAR(given_s[&a], given_s[&b], 0.1);
  EXPECT_NEAR(given_s[&a], given_s[&c], 0.1);
}

TEST(FairShare, LetsOneClassRunAloneWithoutBuildingUpDebtToLaterOnes) {
  FairShare share(0.05);
  Account a, b;
  share.Join(&a);
  for (int turn = 0; turn < 1000; ++turn) share.Charge(share.Next(), 0.01);
  share.Join(&b);
  double a_s = 0, b_s = 0;
  for (int turn = 0; turn < 100; ++turn) {
    Account* const next = share.Next();
    share.Charge(next, 0.01);
    (next == &a ? a_s : b_s) += 0.01;
  }
  EXPECT_NEAR(a_s, b_s, 0.1 + 1e-9);
}

TEST(FairShare, TakesNoCreditAlongButKeepsDebt) {
  FairShare share(0.05);
  Account a, b;
  share.Join(&a);
  share.Join(&b);
  share.Charge(share.Next(), 0.01);
  EXPECT_GT(a.credit_s, 0);
  share.Leave(&a);
  share.Join(&a);
  EXPECT_EQ(a.credit_s, 0);
  share.Charge(&a, 1.0);
  share.Leave(&a);
  share.Join(&a);
  EXPECT_EQ(a.credit_s, -1.0);
}

TEST(FairShare, KeepsTheRoundWhenSomeoneLeaves) {
  FairShare share(0.05);
  Account a, b, c;
  for (auto* account : {&a, &b, &c}) share.Join(account);
  EXPECT_EQ(share.Next(), &a);
  share.Leave(&a);
  EXPECT_EQ(share.Next(), &b);
  EXPECT_EQ(share.Next(), &c);
  share.Leave(&a);  // a second time: nothing happens
  share.Leave(&b);
  share.Leave(&c);
  EXPECT_TRUE(share.empty());
}

TEST(FairShare, GoesOnAfterAStepOfManyQuanta) {
  FairShare share(0.05);
  Account a;
  share.Join(&a);
  share.Charge(share.Next(), 1234.5);
  EXPECT_EQ(share.Next(), &a);
  EXPECT_GT(a.credit_s, 0);
  EXPECT_LE(a.credit_s, 0.05 + 1e-9);
}

TEST(FairShareDeathTest, HasATurnOnlyForMembers) {
  FairShare share(0.05);
  EXPECT_DEATH(share.Next(), "only when someone has work");
}

}  // namespace
}  // namespace nibble
