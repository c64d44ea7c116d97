// The accept loop: hands over, caps, and survives what kills gRPC's own.
#include "service/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/fd.h"

namespace nibble {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

// What the loop handed over, kept open or closed by the test.
class Connections {
 public:
  Acceptor::Hooks Hooks() {
    return {.on_connection =
                [this](int, int fd) {
                  absl::MutexLock lock(&mutex_);
                  open_.emplace_back(fd);
                },
            .on_failure =
                [this](int error) {
                  absl::MutexLock lock(&mutex_);
                  failures_.push_back(error);
                }};
  }
  bool Await(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&] { return open_.size() >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
  }
  bool AwaitFailure() {
    absl::MutexLock lock(&mutex_);
    const auto there = [&] { return !failures_.empty(); };
    return mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
  }
  std::vector<int> failures() {
    absl::MutexLock lock(&mutex_);
    return failures_;
  }
  int fd(size_t i) {
    absl::MutexLock lock(&mutex_);
    return open_[i].get();
  }
  void CloseAll() {
    absl::MutexLock lock(&mutex_);
    open_.clear();
  }

 private:
  absl::Mutex mutex_;
  std::deque<Fd> open_;
  std::vector<int> failures_;
};

Fd NewSocket() { return Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

bool Connect(const Fd& fd, int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

// True when the other side closes without a byte.
bool IsClosedByPeer(const Fd& fd) {
  char byte;
  return recv(fd.get(), &byte, 1, 0) <= 0;
}

TEST(Acceptor, HandsOverNonBlockingSocketsWithoutDelay) {
  Connections connections;
  const Acceptor acceptor(*Listen("--listen", "127.0.0.1:0"), 10, connections.Hooks());
  const Fd client = NewSocket();
  ASSERT_TRUE(Connect(client, acceptor.listener().port));
  ASSERT_TRUE(connections.Await(1));
  EXPECT_TRUE(fcntl(connections.fd(0), F_GETFL) & O_NONBLOCK);
  int no_delay = 0;
  socklen_t length = sizeof(no_delay);
  getsockopt(connections.fd(0), IPPROTO_TCP, TCP_NODELAY, &no_delay, &length);
  EXPECT_EQ(no_delay, 1);
}

TEST(Acceptor, ClosesConnectionsOverItsCapAndHasRoomAgainWhenSomeEnd) {
  Connections connections;
  const Acceptor acceptor(*Listen("--listen", "127.0.0.1:0"), 3, connections.Hooks());
  std::vector<Fd> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(NewSocket());
    ASSERT_TRUE(Connect(clients.back(), acceptor.listener().port));
  }
  ASSERT_TRUE(connections.Await(3));
  const Fd refused = NewSocket();
  ASSERT_TRUE(Connect(refused, acceptor.listener().port));
  EXPECT_TRUE(IsClosedByPeer(refused));
  EXPECT_EQ(acceptor.refused(), 1);
  connections.CloseAll();
  const Fd welcome = NewSocket();
  ASSERT_TRUE(Connect(welcome, acceptor.listener().port));
  EXPECT_TRUE(connections.Await(1));
}

// Lowers the number of file descriptors that may be open to what is open now, and back.
class NoMoreFiles {
 public:
  NoMoreFiles() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const Fd next(open("/dev/null", O_RDONLY | O_CLOEXEC));
    rlimit now = before_;
    now.rlim_cur = static_cast<rlim_t>(next.get());
    setrlimit(RLIMIT_NOFILE, &now);
  }
  ~NoMoreFiles() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_;
};

TEST(Acceptor, RecoversFromHavingNoFileDescriptorLeft) {
  Connections connections;
  const Acceptor acceptor(*Listen("--listen", "127.0.0.1:0"), 1000, connections.Hooks());
  std::vector<Fd> clients(100);
  for (Fd& client : clients) client = NewSocket();
  std::optional<NoMoreFiles> none;
  none.emplace();
  for (const Fd& client : clients) ASSERT_TRUE(Connect(client, acceptor.listener().port));
  ASSERT_TRUE(connections.AwaitFailure());
  EXPECT_EQ(connections.failures(), std::vector<int>{EMFILE}) << "told once per streak";
  none.reset();
  EXPECT_TRUE(connections.Await(100)) << "every one that waited is served";
  const Fd another = NewSocket();
  ASSERT_TRUE(Connect(another, acceptor.listener().port));
  EXPECT_TRUE(connections.Await(101));
}

TEST(Acceptor, StopsAcceptingWhenItDies) {
  Connections connections;
  std::optional<Acceptor> acceptor;
  acceptor.emplace(*Listen("--listen", "127.0.0.1:0"), 10, connections.Hooks());
  const int port = acceptor->listener().port;
  acceptor.reset();
  EXPECT_FALSE(Connect(NewSocket(), port));
}

}  // namespace
}  // namespace nibble
