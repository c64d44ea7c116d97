// accept4 with back-off and a cap; see the header for why.
#include "service/acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "service/workers.h"

namespace nibble {
namespace {

constexpr int kBackOffMs = 50;

// The socket behind a descriptor, or 0 when there is none.
ino_t SocketOf(int fd) {
  struct stat info;
  return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode) ? info.st_ino : 0;
}

}  // namespace

Acceptor::Acceptor(Listener listener, int max_connections, Hooks hooks)
    : listener_(std::move(listener)),
      max_connections_(max_connections),
      hooks_(std::move(hooks)),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      thread_([this] {
        NameThisThread("accept");
        Run();
      }) {}

Acceptor::~Acceptor() {
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void Acceptor::Run() {
  pollfd watched[] = {{wake_.get(), POLLIN, 0}, {listener_.fd.get(), POLLIN, 0}};
  while (true) {
    poll(watched, 2, -1);
    if (watched[0].revents != 0) return;
    // A connection that cannot be accepted keeps the listener readable: without a pause, waiting
    // for the wake-up alone, this would spin.
    if (!AcceptOne() && poll(watched, 1, kBackOffMs) > 0) return;
  }
}

bool Acceptor::AcceptOne() {
  Fd connection(accept4(listener_.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (connection) {
    failing_ = false;
    HandOver(std::move(connection));
    return true;
  }
  const int error = errno;
  const bool peer_left =
      error == EAGAIN || error == EINTR || error == ECONNABORTED || error == EPROTO;
  if (peer_left) return true;
  if (!std::exchange(failing_, true)) hooks_.on_failure(error);
  return false;
}

void Acceptor::HandOver(Fd connection) {
  if (!HasRoom()) {
    ++refused_;
    return;
  }
  const int on = 1;
  setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  open_[connection.get()] = SocketOf(connection.get());
  hooks_.on_connection(listener_.fd.get(), connection.release());
}

bool Acceptor::HasRoom() {
  if (static_cast<int>(open_.size()) < max_connections_) return true;
  std::erase_if(open_, [](const auto& entry) { return SocketOf(entry.first) != entry.second; });
  return static_cast<int>(open_.size()) < max_connections_;
}

}  // namespace nibble
